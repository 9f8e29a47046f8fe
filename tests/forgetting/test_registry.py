"""Every table that could hold something of a user is known to whoever erases, and found by an index."""

import asyncpg
import pytest

from tests.conftest import Database

NAMING = (
    "user_id",
    "conversation_id",
    "job_id",
    "message_id",
    "message_ids",
    "item_id",
    "delivery_id",
    "recipient",
    "peer",
)
"""Columns by which a table is of a user, or hangs on what is."""

_TABLES = """
SELECT c.relname AS name, array_agg(a.attname::text) AS columns
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY c.relname HAVING 'tenant_id' = ANY (array_agg(a.attname::text))
"""
_INDEXED = """
SELECT count(*) FROM pg_index AS i
WHERE i.indrelid = $1::regclass AND (
    SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey[0:1]) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number) @> ARRAY['tenant_id', $2]
"""
_CASCADES = """
SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confdeltype = 'c' AND conrelid = $1::regclass
"""


@pytest.fixture
async def connection(database: Database) -> asyncpg.Connection:
    opened = await asyncpg.connect(database.superuser)
    yield opened
    await opened.close()


async def test_every_table_of_users_is_known_to_whoever_erases(connection: asyncpg.Connection) -> None:
    """A new table fails here until a migration says what becomes of it: `INSERT INTO personal_data …`."""
    known = {row["table_name"] for row in await connection.fetch("SELECT table_name FROM personal_data")}
    tables = {row["name"]: set(row["columns"]) for row in await connection.fetch(_TABLES)}
    missing = {name for name, columns in tables.items() if columns & set(NAMING)} - known
    assert missing == set()
    assert known <= set(tables), "and none that is not there"


async def test_what_is_deleted_is_found_by_an_index_and_dated_by_a_column(connection: asyncpg.Connection) -> None:
    walked = {"jobs"}  # looked through by id, so that no turn pays for an index
    for row in await connection.fetch("SELECT * FROM personal_data WHERE fate IN ('now', 'later')"):
        found_by = ["job_id"] if row["fate"] == "later" else row["found_by"]
        for column in found_by:
            assert await connection.fetchval(_INDEXED, row["table_name"], column), (row["table_name"], column)
        assert row["fate"] == "later" or row["dated_by"] or row["table_name"] in walked, row["table_name"]


async def test_what_is_said_to_go_with_another_row_has_a_key_that_makes_it_go(connection: asyncpg.Connection) -> None:
    for row in await connection.fetch("SELECT table_name FROM personal_data WHERE fate = 'cascade'"):
        assert await connection.fetchval(_CASCADES, row["table_name"]), row["table_name"]
