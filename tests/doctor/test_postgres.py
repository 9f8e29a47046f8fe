"""What the doctor says of Postgres, each fault made on a real database."""

import asyncpg
import pytest

from ops.doctor.findings import Level
from ops.stack.postgres import Postgres
from tests.conftest import Database
from tests.doctor.conftest import Examine


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("statement", "check", "level", "said"),
    [
        ("DELETE FROM schema_migrations WHERE name = '0005_turns'", "postgres.migrations", "fault", "0005_turns"),
        (
            "UPDATE schema_migrations SET sha256 = 'x' WHERE name LIKE '0003%'",
            "postgres.migrations",
            "fault",
            "changed",
        ),
        ("INSERT INTO schema_migrations VALUES ('9999_new', 'x')", "postgres.migrations", "warning", "9999_new"),
        ("ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY", "postgres.row_security", "fault", "jobs"),
        ("ALTER TABLE messages DISABLE ROW LEVEL SECURITY", "postgres.row_security", "fault", "messages"),
        ("DROP POLICY tenant ON users", "postgres.row_security", "fault", "users"),
        ("CREATE TABLE notes (tenant_id text)", "postgres.row_security", "fault", "notes"),
        ("DROP EXTENSION vector CASCADE", "postgres.pgvector", "fault", "`vector` is not in this database"),
        ("DELETE FROM deployment", "deployment", "fault", "empty"),
    ],
)
async def test_a_schema_that_is_not_as_it_should_be(
    examined: Examine, database: Database, statement: str, check: str, level: str, said: str
) -> None:
    await execute(database.superuser, statement)
    finding = (await examined())[check]
    assert (finding.level, said in finding.what) == (level, True), finding
    assert finding.mend


async def test_an_empty_database_is_one_command_away(examined: Examine, empty_database: Database) -> None:
    found = await examined(database_url=empty_database.app, owner_database_url=empty_database.owner)
    assert (found["postgres.migrations"].level, found["postgres.migrations"].mend) == ("fault", "switchboard migrate")
    assert "deployment" not in found


@pytest.mark.parametrize("role", ["superuser", "owner"])
async def test_a_role_that_could_see_every_tenant(examined: Examine, database: Database, role: str) -> None:
    finding = (await examined(database_url=getattr(database, role)))["postgres.role.app"]
    assert (finding.level, finding.mend) == ("fault", "let DATABASE_URL log in as switchboard_app")


async def test_roles_that_cannot_do_their_duty(examined: Examine, database: Database) -> None:
    found = await examined(owner_database_url=database.app, ops_database_url=database.app)
    assert {found["postgres.role.owner"].level, found["postgres.role.ops"].level} == {Level.FAULT}


async def test_duties_without_a_login_are_said(examined: Examine) -> None:
    found = await examined(owner_database_url=None, ops_database_url=None)
    assert found["postgres.login.owner"].level is Level.OK, "only the release has it, where roles are apart"
    assert found["postgres.login.ops"].level is Level.WARNING


async def test_one_role_for_everything_is_pointed_out(examined: Examine, database: Database) -> None:
    found = await examined(owner_database_url=None, database_url=database.owner)
    assert found["postgres.login.owner"].mend == "set SWITCHBOARD_OWNER_DATABASE_URL"


async def test_without_postgres_everything_else_is_still_examined(examined: Examine) -> None:
    found = await examined(database_url="postgresql://switchboard_app:canary-password@127.0.0.1:1/x")
    assert found["postgres.login.app"].level is Level.FAULT
    assert found["redis.writes"].level is Level.OK
    assert not any(one.what.startswith("the check itself broke") for one in found.values())


async def test_more_connections_than_the_server_has(examined: Examine) -> None:
    assert (await examined(db_pool_size=100))["postgres.connections"].level is Level.FAULT


async def test_another_isolation_level(examined: Examine, database: Database, postgres: Postgres) -> None:
    postgres.superuser_sql(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'serializable';")
    assert (await examined())["postgres.isolation"].level is Level.FAULT


async def test_a_ledger_without_its_next_month(examined: Examine, database: Database) -> None:
    connection = await asyncpg.connect(database.superuser)
    month = await connection.fetchval("SELECT to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY_MM')")
    await connection.execute(f"DROP TABLE llm_calls_{month}")
    await connection.close()
    finding = (await examined())["postgres.ledger_months"]
    assert (finding.level, month in finding.what) == (Level.WARNING, True)
