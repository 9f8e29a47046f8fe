"""PostgreSQL for everybody: one pool per process, whose errors are ours.

Statements come from `sql.queries`; each is one round trip and its own transaction, and names its tenant inside the
database. A pool serves only a role that row-level security binds, on a server and schema this version knows.
It survives a restart of the server: calls meanwhile raise Unavailable, later ones connect again.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, NamedTuple

import asyncpg
import msgspec
import structlog

from shared.errors import ConfigError, Conflict, Unavailable
from sql import queries
from sql.migrate import MINIMUM_SERVER, MigrationError, migrations, pending

Environment = Literal["development", "staging", "production"]
Row = Mapping[str, Any]
"""One row by column name (an asyncpg.Record). JSON columns are text: decode them with msgspec."""

log = structlog.get_logger()

_CONNECT_TIMEOUT_S = 5.0
_COMMAND_TIMEOUT_S = 30.0
"""Longest wait for an answer or for a free connection: a host that vanished without a word must not hold a job."""
_CLOSE_TIMEOUT_S = 5.0

_CONVERSATION_OWNER = "SB001"
"""SQLSTATE of `commit_turn` when the conversation belongs to another user."""

_UNAVAILABLE = (
    OSError,  # refused, reset, no such socket, no answer in time (TimeoutError)
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,  # starting up or shutting down
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # connections, memory, disk
    asyncpg.ReadOnlySQLTransactionError,  # we still talk to the old primary after a failover
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
)

_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def jsonb(value: object) -> str:
    """`value` as the JSON text of a jsonb parameter; whatever a model said, it can be stored.

    PostgreSQL has neither NUL nor lone surrogates (half an emoji, cut by a provider): U+FFFD and `?` stand for them.
    """
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False).encode(errors="replace").decode()
    return _NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


class PoolUsage(NamedTuple):
    """Connections of one pool."""

    in_use: int
    idle: int
    limit: int


class Pool:
    """Made by `open_pool`. Every method raises Unavailable when the server cannot do it now: retry then.

    The outcome of a statement whose connection broke is unknown; ours may all be repeated.
    """

    def __init__(self, pool: Any, *, prepared_statements: bool = True) -> None:
        self._pool = pool
        self._prepared_statements = prepared_statements

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        """The first row."""
        async with self.connection() as connection:
            row: Row | None = await connection.fetchrow(query, *args)
            return row

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """All rows."""
        async with self.connection() as connection:
            rows: list[Row] = await connection.fetch(query, *args)
            return rows

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first column of the first row."""
        async with self.connection() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> None:
        async with self.connection() as connection:
            await connection.execute(query, *args)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """An asyncpg connection for what takes several statements; errors of the block are translated too."""
        with translated_errors():
            async with self._pool.acquire(timeout=_COMMAND_TIMEOUT_S) as connection, _lost_connection(connection):
                if self._prepared_statements:
                    yield connection
                else:
                    # The unnamed statement lives between two messages: a transaction keeps PgBouncer from sending
                    # the second to another server. Two more round trips.
                    async with connection.transaction():
                        yield connection

    def usage(self) -> PoolUsage:
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return PoolUsage(in_use=size - idle, idle=idle, limit=self._pool.get_max_size())

    async def close(self) -> None:
        """Wait for running statements for a moment, then cut them off."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


async def open_pool(dsn: str, size: int, *, environment: Environment, prepared_statements: bool = True) -> Pool:
    """A checked pool of at most `size` connections; one is made now, the others when they are needed.

    Raises ConfigError for what a person must mend (role, schema, server, DSN) and Unavailable when the server cannot
    be reached. `prepared_statements=False` is for a PgBouncer in transaction mode that does not track them (before
    1.21, or `max_prepared_statements = 0`); a newer one needs nothing.
    """
    with _login_errors(), translated_errors():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=_COMMAND_TIMEOUT_S,
            statement_cache_size=100 if prepared_statements else 0,
            max_cached_statement_lifetime=0,
            reset=_keep_session,
            server_settings={"application_name": "switchboard"},
        )
    opened = Pool(pool, prepared_statements=prepared_statements)
    try:
        await _check(opened, environment)
    except BaseException:
        await opened.close()
        raise
    return opened


@contextmanager
def translated_errors() -> Iterator[None]:
    """asyncpg's errors as ours, the one translator: Unavailable and Conflict; others are faults and pass."""
    try:
        yield
    except _UNAVAILABLE as error:
        raise Unavailable(f"Postgres cannot be reached: {error or 'no answer in time'}") from error
    except asyncpg.InterfaceError as error:
        # asyncpg has no class of its own for a pool or connection that turns out to be closed when it is used.
        if "closed" in str(error) or "closing" in str(error):
            raise Unavailable(f"Postgres cannot be reached: {error}") from error
        raise
    except asyncpg.PostgresError as error:
        if error.sqlstate == _CONVERSATION_OWNER:
            raise Conflict(str(error), code="conversation_owner", status=422) from error
        raise


@asynccontextmanager
async def _lost_connection(connection: Any) -> AsyncIterator[None]:
    """A connection cut at a bad moment surprises asyncpg itself ("cannot switch to state 12"): still Unavailable."""
    try:
        yield
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if connection.is_closed():
            raise Unavailable(f"Postgres cannot be reached: connection lost ({error})") from error
        raise


@contextmanager
def _login_errors() -> Iterator[None]:
    """Errors of the first connection that waiting does not cure."""
    try:
        yield
    except (
        asyncpg.InvalidAuthorizationSpecificationError,  # wrong password, unknown role, no pg_hba line
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.ClientConfigurationError,
        ValueError,
    ) as error:
        raise ConfigError(f"DATABASE_URL: {error}") from error


async def _keep_session(_connection: Any) -> None:
    """In place of asyncpg's `RESET ALL; …` after each use, a round trip: our statements leave nothing behind.

    Settings are local to their transaction; asyncpg itself rolls an abandoned transaction back before it calls us.
    """


async def _check(pool: Pool, environment: Environment) -> None:
    """Refuse what would be unsafe or would fail later."""
    facts = await pool.fetchrow(queries["connection_facts"])
    if facts is None:
        raise ConfigError("DATABASE_URL: the server does not know its own role")
    if facts["server_version"] < MINIMUM_SERVER:
        raise ConfigError(f"PostgreSQL {facts['server_version'] // 10000} is too old; 15 or newer is needed")
    _check_role(facts, environment)
    if facts["isolation"] != "read committed":
        raise ConfigError(f"default_transaction_isolation is {facts['isolation']!r}; it must be 'read committed'")
    await _check_schema(pool, migrated=facts["migrated"])


def _check_role(facts: Row, environment: Environment) -> None:
    """Row-level security must bind the role; in production it must not be able to switch it off either."""
    name = facts["role_name"]
    if facts["superuser"] or facts["bypasses_rls"]:
        right = "SUPERUSER" if facts["superuser"] else "BYPASSRLS"
        raise ConfigError(f"role {name} has {right}, so tenants would not be kept apart; use switchboard_app")
    if facts["owns_tables"]:
        message = f"role {name} owns the tables and could switch row-level security off; use switchboard_app"
        if environment == "production":
            raise ConfigError(message)
        log.warning("db.role_owns_tables", role=name)


async def _check_schema(pool: Pool, *, migrated: bool) -> None:
    rows = await pool.fetch(queries["applied_migrations"]) if migrated else []
    try:
        missing = pending(migrations(), {row["name"]: row["sha256"] for row in rows})
    except MigrationError as error:
        raise ConfigError(str(error)) from error
    if missing:
        raise ConfigError(f"the database lacks {missing[-1].name}; run `switchboard migrate`")
