"""The loader, and every query against the schema it is meant for."""

import asyncpg
import pytest

from sql import parse_queries, queries


@pytest.mark.parametrize("name", sorted(queries))
async def test_every_query_prepares_on_a_migrated_database(name: str, database) -> None:
    connection = await asyncpg.connect(database.owner)
    try:
        statement = await connection.prepare(queries[name])
        assert statement.get_attributes(), "a query without columns would tell its caller nothing"
    finally:
        await connection.close()


def test_a_query_is_its_statement_without_the_comments() -> None:
    text = "-- name: one\n-- Purpose: $1 key.\nSELECT $1\n\n-- name: two\n-- Other.\nSELECT\n    2\n"
    assert parse_queries(text) == {"one": "SELECT $1", "two": "SELECT\n    2"}


@pytest.mark.parametrize("text", ["-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n", "-- name: a\n-- Only words.\n"])
def test_a_name_given_twice_or_without_a_statement_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'a' is given twice or empty"):
        parse_queries(text)
