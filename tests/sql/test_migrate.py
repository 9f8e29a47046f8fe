"""Migrations: in order, once, together or not at all, with one line that says what is wrong."""

import asyncio
import re
import shutil
from pathlib import Path

import asyncpg
import pytest

import sql.migrate
from sql.migrate import MigrationError, migrate, migrations

SHIPPED = Path(sql.migrate.__file__).parent / "migrations"
NAMES = [migration.name for migration in migrations()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "migrations"))


async def query(dsn: str, statement: str, *args: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(statement, *args)
    finally:
        await connection.close()


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [int(name[:4]) for name in NAMES] == list(range(1, len(NAMES) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+", name) for name in NAMES)


async def test_an_empty_database_gets_all_and_a_second_run_nothing(empty_database) -> None:
    assert await migrate(empty_database.owner) == NAMES
    assert await migrate(empty_database.owner) == []


async def test_concurrent_runs_share_the_work_without_doing_any_twice(empty_database) -> None:
    shares = await asyncio.gather(*(migrate(empty_database.owner) for _ in range(4)))
    assert sorted(name for share in shares for name in share) == NAMES


async def test_a_migration_changed_after_it_was_applied_is_refused(empty_database, folder: Path) -> None:
    await migrate(empty_database.owner, folder=folder)
    changed = folder / f"{NAMES[1]}.sql"
    changed.write_text(changed.read_text() + "\n-- harmless?\n")
    with pytest.raises(MigrationError, match=f"{NAMES[1]} was changed after it was applied"):
        await migrate(empty_database.owner, folder=folder)


async def test_windows_line_ends_are_no_change(empty_database, folder: Path) -> None:
    await migrate(empty_database.owner, folder=folder)
    for path in folder.glob("*.sql"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert await migrate(empty_database.owner, folder=folder) == []


async def test_a_failing_migration_leaves_those_before_it_and_nothing_of_itself(empty_database, folder: Path) -> None:
    broken = folder / "9000_broken.sql"
    broken.write_text("CREATE TABLE half (a int);\nSELECT 1 / 0;\n")
    with pytest.raises(MigrationError, match=r"^9000_broken: division by zero$"):
        await migrate(empty_database.owner, folder=folder)
    rows = await query(empty_database.owner, "SELECT to_regclass('half') AS half, count(*) FROM schema_migrations")
    assert (rows[0]["half"], rows[0]["count"]) == (None, len(NAMES))
    broken.write_text("CREATE TABLE whole (a int);\n")
    assert await migrate(empty_database.owner, folder=folder) == ["9000_broken"]


async def test_older_code_leaves_a_newer_schema_alone(empty_database, folder: Path) -> None:
    (folder / "9000_newer.sql").write_text("CREATE TABLE newer (a int);\n")
    await migrate(empty_database.owner, folder=folder)
    assert await migrate(empty_database.owner) == []


async def test_a_data_migration_reaches_every_tenant_though_the_owner_is_bound(database, folder: Path) -> None:
    for tenant in ("alpha", "beta"):
        await query(database.owner, "SELECT upsert_tenant_key($1, 'old', $2, '{chat}', '')", tenant, tenant[0] * 64)
    assert await query(database.owner, "SELECT * FROM tenants") == []
    (folder / "9000_rename.sql").write_text("UPDATE tenants SET name = 'new';\n")
    await migrate(database.owner, folder=folder)
    rows = await query(database.ops, "SELECT name FROM tenants")
    assert [row["name"] for row in rows] == ["new", "new"]


async def test_tables_of_later_migrations_are_granted_to_app_and_ops(database, folder: Path) -> None:
    (folder / "9000_later.sql").write_text("CREATE TABLE later (id int GENERATED ALWAYS AS IDENTITY, a int);\n")
    await migrate(database.owner, folder=folder)
    for dsn in (database.app, database.ops):
        assert [row["id"] for row in await query(dsn, "INSERT INTO later (a) VALUES (1) RETURNING id")] != []


async def test_a_role_without_rights_is_told_what_it_lacks(empty_database) -> None:
    with pytest.raises(MigrationError, match="must own the database") as caught:
        await migrate(empty_database.app)
    assert "\n" not in str(caught.value)


async def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"^cannot reach Postgres: .*") as caught:
        await migrate(f"postgresql://nobody@/nothing?host={tmp_path}")
    assert "\n" not in str(caught.value)


async def test_a_database_that_does_not_exist_is_one_line(empty_database) -> None:
    with pytest.raises(MigrationError, match=r'^cannot log in to Postgres: database "absent" does not exist$'):
        await migrate(empty_database.owner.replace(empty_database.name, "absent"))


@pytest.mark.parametrize(
    ("constant", "value", "said"),
    [
        ("MINIMUM_SERVER", 990000, r"PostgreSQL \d+ is too old"),
        ("MINIMUM_PGVECTOR", (99, 0, 0), r"pgvector [\d.]+ is too old; 99.0.0 or newer is needed"),
    ],
)
async def test_an_old_server_or_extension_is_refused_before_anything_is_written(
    empty_database, monkeypatch: pytest.MonkeyPatch, constant: str, value: object, said: str
) -> None:
    monkeypatch.setattr(sql.migrate, constant, value)
    with pytest.raises(MigrationError, match=said):
        await migrate(empty_database.owner)
    assert (await query(empty_database.owner, "SELECT to_regclass('schema_migrations') AS it"))[0]["it"] is None
