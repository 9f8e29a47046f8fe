"""Real servers for every test: one Valkey, one PostgreSQL and one stand-in model server per run.

Each test gets its own flushed logical Redis database (`redis_url`, `redis`) and, when it asks for one, its own migrated
database cloned from a template (`database`). `eventually` waits for a condition; nothing sleeps for a fixed time.
"""

import asyncio
import inspect
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from redis.asyncio import Redis

from ops.stack.directory import DataDirectory
from ops.stack.postgres import Postgres, start_postgres
from ops.stack.standin import Standin, start_standin
from ops.stack.valkey import Valkey, start_valkey
from shared.config import Settings, environment_name
from sql.migrate import migrate
from tests.pgbouncer import PgBouncer, start_pgbouncer
from workers.models import http as model_http
from workers.turn import recollect

TEMPLATE = "switchboard_template"
NO_FSYNC = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "2GB"}
"""The tests' cluster is thrown away: durability would only cost time."""

hypothesis_settings.register_profile(
    "usual", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
hypothesis_settings.register_profile("thorough", max_examples=2_000, deadline=None, derandomize=False, print_blob=True)
hypothesis_settings.load_profile("usual")
"""The same examples in every run, however slow the machine. `--hypothesis-profile=thorough` looks for others: for an
hour at night, not for every run."""

_numbers = itertools.count(1)
_redis_databases = itertools.cycle(range(1, 64))


@dataclass(frozen=True)
class Database:
    """One test's own database: the same one as each role."""

    name: str
    owner: str
    app: str
    ops: str
    superuser: str


@pytest.fixture(scope="session")
def stack_directory() -> Iterator[DataDirectory]:
    """The run's private folder, under a short path (sockets), removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="switchboard-tests-", dir=_roomy_memory()))
    path.chmod(0o711)  # for root: its servers run as another user
    with DataDirectory(path) as directory:
        yield directory
    shutil.rmtree(path, ignore_errors=True)


def _roomy_memory() -> str | None:
    """Where files live in memory and there is room for the run's: a database for every test costs a tenth there."""
    memory = Path("/dev/shm")  # noqa: S108 (mkdtemp makes a private folder in it)
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30 else None


@pytest.fixture(scope="session")
def valkey(stack_directory: DataDirectory) -> Iterator[Valkey]:
    server = start_valkey(stack_directory, settings={"enable-debug-command": "local"})
    yield server
    server.child.stop()


@pytest.fixture(scope="session")
def valkey_url(valkey: Valkey) -> str:
    """The server itself, database 0. Tests of one part want `redis_url`."""
    return valkey.url()


@pytest.fixture
def private_directory(stack_directory: DataDirectory) -> Iterator[DataDirectory]:
    """A data directory for a test that starts, kills or restarts servers of its own (`start_valkey(it, port=…)`)."""
    path = stack_directory.path / f"private-{next(_numbers)}"
    path.mkdir(mode=0o711)
    with DataDirectory(path) as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres(stack_directory: DataDirectory) -> Iterator[Postgres]:
    """The cluster, with roles and the empty database `switchboard`. Tests of one part want `database`."""
    server = start_postgres(stack_directory, settings=NO_FSYNC)
    yield server
    server.stop()


def pytest_configure() -> None:
    """A shell's own settings (`. .dev/env`) are none of the tests', but for the one that PgBouncer's run sets."""
    for field in set(Settings.model_fields) - {"db_prepared_statements"}:
        os.environ.pop(environment_name(field), None)  # noqa: TID251 - taken away, not read


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pgbouncer", metavar="PROGRAM", help="put this PgBouncer before the database of every test")


@pytest.fixture(scope="session")
def pgbouncer(
    pytestconfig: pytest.Config, stack_directory: DataDirectory, postgres: Postgres
) -> Iterator[PgBouncer | None]:
    """In transaction mode, before the run's cluster; None unless `--pgbouncer` names the program."""
    program: str | None = pytestconfig.getoption("pgbouncer")
    if program is None:
        yield None
        return
    server = start_pgbouncer(program, stack_directory, postgres)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> str:
    """A migrated database that nobody uses but to clone it."""
    postgres.superuser_sql(
        f"CREATE DATABASE {TEMPLATE} OWNER switchboard_owner;\n\\connect {TEMPLATE}\nCREATE EXTENSION vector;"
    )
    asyncio.run(migrate(postgres.dsn("switchboard_owner", TEMPLATE)))
    return TEMPLATE


@pytest.fixture
async def database(postgres: Postgres, template_database: str, pgbouncer: PgBouncer | None) -> AsyncIterator[Database]:
    """A fresh migrated database, dropped afterwards (connections still open to it are ended)."""
    async with fresh_database(postgres, template_database) as made:
        yield made if pgbouncer is None else replace(made, app=pgbouncer.dsn(made.app), ops=pgbouncer.dsn(made.ops))


@pytest.fixture
async def empty_database(postgres: Postgres) -> AsyncIterator[Database]:
    """A database with the extension `vector` and nothing else, owned by `switchboard_owner`."""
    async with fresh_database(postgres, None) as made:
        yield made


@asynccontextmanager
async def fresh_database(postgres: Postgres, template: str | None) -> AsyncIterator[Database]:
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(postgres.dsn("postgres", "postgres"))
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'} OWNER switchboard_owner")
        superuser = postgres.dsn("postgres", name)
        if template is None:
            await _execute(superuser, "CREATE EXTENSION vector")
        owner, app, ops = (postgres.dsn(f"switchboard_{role}", name) for role in ("owner", "app", "ops"))
        yield Database(name, owner=owner, app=app, ops=ops, superuser=superuser)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture
async def redis_url(valkey: Valkey) -> str:
    """A flushed logical database of the run's Valkey; the databases take turns, so that leftovers reach nobody.

    Pub/sub channels are not per database in Redis: tests keep them apart by the random ids in their names.
    """
    url = valkey.url(next(_redis_databases))
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client on `redis_url`; replies are bytes."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def standin_process(stack_directory: DataDirectory) -> Iterator[Standin]:
    server = start_standin(stack_directory)
    yield server
    server.child.stop()


@pytest.fixture
async def standin(standin_process: Standin) -> Standin:
    """The run's stand-in model server with default behaviour and empty books."""
    async with httpx.AsyncClient(base_url=standin_process.url) as client:
        for path in ("/_behaviour", "/_served", "/messengers/_served"):
            (await client.delete(path)).raise_for_status()
    return standin_process


PATIENCE_S = 30.0
"""How long tests wait for what must come: a machine that is ten times too slow gets there, a passing test never waits
for it. Bounds that prove something (before the next poll, say) are the test's own."""
START_S = 300.0
"""The same for what a process does that must start first: seconds of CPU, of which a crowded machine has few."""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowded machine is not what tests are about: waits of a worker that would change what a turn is made of.

    Tests of these very waits set their own.
    """
    monkeypatch.setattr(recollect, "DEADLINE_S", PATIENCE_S)
    monkeypatch.setattr(model_http, "CONNECT_S", PATIENCE_S)


class Eventually(Protocol):
    async def __call__(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> Any: ...


@pytest.fixture
def eventually() -> Eventually:
    """`await eventually(condition)`: poll until `condition()` is true (sync or async); returns it."""
    return _eventually


async def _eventually(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        found = await value if inspect.isawaitable(value) else value
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not true within {timeout_s} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.01)
