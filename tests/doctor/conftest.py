"""A deployment in good order, to be broken one thing at a time, with production's settings.

The Valkey is not the other tests' one: what is broken here belongs to a whole server.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.asyncio import Redis

from ops.doctor.examination import examine
from ops.doctor.findings import Finding, Level
from ops.stack.directory import DataDirectory
from ops.stack.valkey import Valkey, start_valkey
from shared.config import Settings
from tests.conftest import Database

SOUND = {"appendfsync": "always", "maxmemory": "1gb"}

Examine = Callable[..., Awaitable[dict[str, Finding]]]


@pytest.fixture(scope="session")
def doctors_valkey(stack_directory: DataDirectory) -> Iterator[Valkey]:
    path = stack_directory.path / "doctor"
    path.mkdir(mode=0o711)
    with DataDirectory(path) as directory:
        server = start_valkey(directory, settings=SOUND)
        yield server
        server.child.stop()


@pytest.fixture
async def server(doctors_valkey: Valkey) -> AsyncIterator[Redis]:
    """The Valkey, empty and in good order again."""
    client = Redis.from_url(doctors_valkey.url())
    await client.replicaof("NO", "ONE")  # type: ignore[no-untyped-call]  # redis-py
    for name, value in {**SOUND, "maxmemory-policy": "noeviction", "appendonly": "yes"}.items():
        await client.config_set(name, value)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def settings(doctors_valkey: Valkey, server: Redis, database: Database) -> Settings:
    return Settings.read(
        {
            "environment": "production",
            "secret": "a secret of tests, long enough",
            "redis_url": doctors_valkey.url(),
            "database_url": database.app,
            "owner_database_url": database.owner,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-canary-of-the-key",
        }
    )


@pytest.fixture
def examined(settings: Settings) -> Examine:
    """`await examined(db_pool_size=3)`: findings by check, the worst one where a check has several."""

    async def run(*, online: bool = False, **changes: object) -> dict[str, Finding]:
        found = await examine(settings.model_copy(update=changes), [], [], online=online)
        ranks = list(Level)
        return {one.check: one for one in sorted(found, key=lambda one: ranks.index(one.level))}

    return run
