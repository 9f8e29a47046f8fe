"""The pool: what it refuses, what it costs, and how it lives through a restart of the server."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import shared.db
from ops.stack.directory import DataDirectory
from ops.stack.postgres import start_postgres
from shared.db import Pool, jsonb, open_pool
from shared.errors import ConfigError, Unavailable
from sql import queries
from sql.migrate import migrate
from tests.sql.shapes import a_call, a_turn


@pytest.mark.parametrize("environment", ["development", "staging", "production"])
async def test_a_superuser_is_refused_everywhere(database: Any, environment: Any) -> None:
    with pytest.raises(ConfigError, match="role postgres has SUPERUSER"):
        await open_pool(database.superuser, 1, environment=environment)


async def test_a_role_that_bypasses_row_level_security_is_refused(database: Any, postgres: Any) -> None:
    postgres.superuser_sql("CREATE ROLE bypassing LOGIN BYPASSRLS; GRANT switchboard_app TO bypassing;")
    try:
        with pytest.raises(ConfigError, match="role bypassing has BYPASSRLS"):
            await open_pool(database.app.replace("switchboard_app", "bypassing"), 1, environment="development")
    finally:
        postgres.superuser_sql("DROP ROLE bypassing;")


async def test_the_owner_is_refused_in_production(database: Any) -> None:
    with pytest.raises(ConfigError, match="switchboard_owner owns the tables"):
        await open_pool(database.owner, 1, environment="production")


async def test_an_empty_database_is_refused_with_the_command_that_helps(empty_database: Any) -> None:
    with pytest.raises(ConfigError, match="run `switchboard migrate`"):
        await open_pool(empty_database.app, 1, environment="development")


async def test_a_database_behind_this_version_is_refused(database: Any, tmp_path: Path) -> None:
    connection = await asyncpg.connect(database.owner)
    try:
        await connection.execute("DELETE FROM schema_migrations WHERE name = '0005_turns'")
    finally:
        await connection.close()
    with pytest.raises(ConfigError, match="lacks 0005_turns; run `switchboard migrate`"):
        await open_pool(database.app, 1, environment="development")


async def test_another_isolation_level_is_refused(database: Any, postgres: Any) -> None:
    postgres.superuser_sql(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'serializable';")
    with pytest.raises(ConfigError, match="must be 'read committed'"):
        await open_pool(database.app, 1, environment="development")


async def test_an_old_server_is_refused(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.db, "MINIMUM_SERVER", 990000)
    with pytest.raises(ConfigError, match="is too old"):
        await open_pool(database.app, 1, environment="development")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda dsn: dsn.replace("switchboard_app", "nobody_knows"), 'role "nobody_knows" does not exist'),
        (lambda dsn: dsn.replace("/test_", "/absent_"), 'database "absent_.*" does not exist'),
        (lambda _: "http://example.org", "DATABASE_URL"),
    ],
    ids=["role", "database", "scheme"],
)
async def test_what_a_person_must_mend_is_a_config_error(
    database: Any, change: Callable[[str], str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await open_pool(change(database.app), 1, environment="development")


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Postgres cannot be reached"):
        await open_pool(f"postgresql://switchboard_app@/x?host={tmp_path}", 1, environment="development")


async def test_a_statement_is_one_round_trip(app: Pool) -> None:
    """asyncpg would add a `RESET ALL` for every use of a connection; we leave nothing to reset."""
    await app.fetchrow(queries["resolve_api_key"], "a" * 64)  # prepares it once
    seen: list[str] = []
    async with app.connection() as connection:
        connection.add_query_logger(lambda record: seen.append(record.query))
    await app.fetchrow(queries["resolve_api_key"], "a" * 64)
    assert seen == [queries["resolve_api_key"]]


async def test_an_abandoned_transaction_does_not_reach_the_next_user(database: Any) -> None:
    pool = await open_pool(database.app, 1, environment="development")
    try:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # asyncpg reports the abandoned one
        async with pool.connection() as connection:
            await connection.execute("BEGIN; SELECT set_config('switchboard.tenant', 'alpha', true)")
        assert not await pool.fetchval("SELECT current_setting('switchboard.tenant', true)")
        async with pool.connection() as connection:
            assert not connection.is_in_transaction()
    finally:
        await pool.close()


async def test_without_prepared_statements_nothing_is_left_on_the_server(database: Any) -> None:
    """For PgBouncer in transaction mode: the next transaction may meet another server."""
    pool = await open_pool(database.app, 1, environment="development", prepared_statements=False)
    try:
        for _ in range(3):
            row = await pool.fetchrow(queries["commit_turn"], "alpha", jsonb(a_turn(calls=[a_call()])))
            assert row is not None
            assert row["won"]
        assert await pool.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
        async with pool.connection() as connection:
            assert connection.is_in_transaction()  # what keeps both halves of a statement on one server
    finally:
        await pool.close()


async def test_a_failed_commit_behind_pgbouncer_leaves_a_usable_pool(database: Any) -> None:
    pool = await open_pool(database.app, 1, environment="development", prepared_statements=False)
    try:
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.fetchrow(queries["commit_turn"], "alpha", jsonb(a_turn(run=0)))
        assert await pool.fetchval("SELECT 1") == 1
    finally:
        await pool.close()


async def test_a_connection_cut_while_it_waits_is_unavailable_and_the_next_call_has_a_new_one(
    database: Any, ops: Pool, eventually: Any
) -> None:
    pool = await open_pool(database.app, 1, environment="development")
    killer = await asyncpg.connect(database.superuser)
    try:
        running = asyncio.create_task(pool.fetchval("SELECT pg_sleep(60)"))
        sleeping = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        pid = await eventually(lambda: killer.fetchval(sleeping))
        await killer.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(Unavailable):
            await running
        assert await pool.fetchval("SELECT 1") == 1
    finally:
        await killer.close()
        await pool.close()


async def test_a_connection_cut_between_preparing_and_running_is_unavailable_too(database: Any, postgres: Any) -> None:
    """asyncpg finds itself in a state it did not expect, and says so instead of naming the lost connection."""
    pool = await open_pool(database.app, 1, environment="development")
    try:
        async with pool.connection() as connection:
            pid = connection.get_server_pid()
        running = asyncio.create_task(pool.fetchval("SELECT pg_sleep(60)"))
        await asyncio.sleep(0)
        # Synchronous on purpose: our loop sees the answer to its Parse and the farewell in one read.
        postgres.superuser_sql(f"SELECT pg_terminate_backend({pid}, 5000);")
        with pytest.raises(Unavailable):
            await running
        assert await pool.fetchval("SELECT 1") == 1
    finally:
        await pool.close()


async def test_the_pool_survives_a_restart_of_the_server(private_directory: DataDirectory, eventually: Any) -> None:
    server = start_postgres(private_directory)
    await migrate(server.dsn("switchboard_owner"))
    pool = await open_pool(server.dsn(), 3, environment="production")
    turn = a_turn(calls=[a_call()])
    try:
        # All three connections are open, so that each has to be replaced.
        await asyncio.gather(*(pool.execute("SELECT pg_sleep(0.05)") for _ in range(3)))
        await pool.fetchrow(queries["commit_turn"], "alpha", jsonb(turn))
        server.child.process.send_signal(signal.SIGQUIT)  # as a crash: connections are cut without a word
        server.child.process.wait()
        with pytest.raises(Unavailable):
            await pool.fetchrow(queries["commit_turn"], "alpha", jsonb(turn))
        server.stop()
        server = start_postgres(private_directory)

        async def adopted() -> bool:
            try:
                rows = await asyncio.gather(
                    *(pool.fetchrow(queries["commit_turn"], "alpha", jsonb(turn)) for _ in range(6))
                )
            except Unavailable:
                return False
            return all(row is not None and not row["won"] for row in rows)

        await eventually(adopted)
    finally:
        await pool.close()
        server.stop()
