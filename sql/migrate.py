"""Bring a database to this version's schema: `await migrate(dsn)`, run by the owner once per deploy.

Migrations are plain SQL, applied in order of their number, each in its own transaction together with its record, so
a crash leaves a prefix of them and a second run goes on. A transaction-level advisory lock makes concurrent runs
take turns (and works behind PgBouncer). They expand, and contract a release later: the version before keeps running.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from sql import queries

MINIMUM_SERVER = 150000
MINIMUM_PGVECTOR = (0, 8, 4)
"""Fixes CVE-2026-3172 and the vacuum faults after it."""

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x5B_0001  # any constant; one per purpose within a database
_CONNECT_TIMEOUT_S = 10.0
_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS public.schema_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `name` is its stem: `0001_foundation`."""

    name: str
    text: str
    sha256: str


def migrations(folder: Path = _FOLDER) -> list[Migration]:
    """The migrations of a folder in order. Line ends do not count, so that a checkout on Windows is the same."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        text = path.read_bytes().decode().replace("\r\n", "\n")
        found.append(Migration(path.stem, text, hashlib.sha256(text.encode()).hexdigest()))
    return found


def pending(known: Sequence[Migration], applied: dict[str, str]) -> list[Migration]:
    """Those not applied yet. Raises MigrationError when an applied one reads differently now.

    Applied ones that we do not know belong to a newer version: after a rollback the older code runs on, untroubled.
    """
    for migration in known:
        if applied.get(migration.name, migration.sha256) != migration.sha256:
            raise MigrationError(
                f"migration {migration.name} was changed after it was applied; undo the change and add a new migration"
            )
    return [migration for migration in known if migration.name not in applied]


async def migrate(dsn: str, *, folder: Path = _FOLDER) -> list[str]:
    """Apply what is pending; the names applied by this call. Raises MigrationError, with everything before intact."""
    connection = await _connect(dsn)
    try:
        await _check_server(connection)
        names = []
        while (name := await _apply_next(connection, migrations(folder))) is not None:
            names.append(name)
        return names
    finally:
        await connection.close()


async def _connect(dsn: str) -> Any:
    try:
        return await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT_S, statement_cache_size=0)
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
        raise MigrationError(f"cannot reach Postgres: {_one_line(error)}") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise MigrationError(f"cannot log in to Postgres: {_one_line(error)}") from error


async def _check_server(connection: Any) -> None:
    """Version and pgvector, before anything is written."""
    version = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    if version < MINIMUM_SERVER:
        raise MigrationError(f"PostgreSQL {version // 10000} is too old; 15 or newer is needed")
    vector = await connection.fetchrow(
        "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
    )
    if vector is None:
        raise MigrationError("the server has no pgvector; install the extension `vector` on it")
    found = vector["installed_version"] or vector["default_version"]
    if tuple(int(part) for part in found.split(".")) < MINIMUM_PGVECTOR:
        wanted = ".".join(map(str, MINIMUM_PGVECTOR))
        raise MigrationError(
            f"pgvector {found} is too old; {wanted} or newer is needed (ALTER EXTENSION vector UPDATE, if installed)"
        )


async def _apply_next(connection: Any, known: Sequence[Migration]) -> str | None:
    """Apply the first pending migration, or return None. Whoever runs beside us waits, then finds it done."""
    current = "the bookkeeping"
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            # Not earlier: waiting for another migration is fine, queueing behind a long reader of a table is not,
            # because everybody else queues behind us.
            await connection.execute("SET LOCAL lock_timeout = '30s'; SET LOCAL search_path = public")
            await connection.execute("SELECT set_config('switchboard.migrating', 'on', true)")
            await connection.execute(_BOOKKEEPING)
            applied = {row["name"]: row["sha256"] for row in await connection.fetch(queries["applied_migrations"])}
            todo = pending(known, applied)
            if not todo:
                return None
            current = todo[0].name
            await connection.execute(todo[0].text)
            await connection.execute(
                "INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", current, todo[0].sha256
            )
            return current
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(f"{current}: {_one_line(error)}; {_needed_privilege(str(error))}") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise MigrationError(f"{current}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """PostgreSQL's message with its detail and hint, which come on lines of their own."""
    return " ".join(str(error).split()) or "no answer in time"


def _needed_privilege(message: str) -> str:
    if "extension" in message:
        return "have a superuser run CREATE EXTENSION vector in this database"
    if "role" in message:
        return "the migrating role needs CREATEROLE, or have switchboard_app and switchboard_ops created (LOGIN)"
    return "the migrating role must own the database or may CREATE in schema public"
