"""A report reads the months it is about and no other, by the plan and by the server's own count of scans."""

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from shared.db import Pool
from sql import queries
from tests.conftest import Database
from tests.usage.ledger import Ledger, at

SPANS = [
    ("2026-11-03", "2026-11-04", {"llm_calls_2026_11"}),
    ("2026-11-01", "2026-12-01", {"llm_calls_2026_11"}),
    ("2026-11-30", "2026-12-02", {"llm_calls_2026_11", "llm_calls_2026_12"}),
]
TENANT = {"tenant": "acme"}


@pytest.fixture
async def months(ledger: Ledger, ops: Pool) -> None:
    """A row in each of three months that have partitions of their own, whatever the date of today."""
    await ops.fetchval("SELECT make_llm_calls_partitions('2026-10-01Z', 3)")
    for month in (10, 11, 12):
        await ledger.add(at(f"2026-{month}-15T00:00:00"))


@pytest.mark.usefixtures("months")
@pytest.mark.parametrize(("start", "end", "partitions"), SPANS)
@pytest.mark.parametrize("role", ["app", "ops"])
async def test_only_the_partitions_of_the_span_are_planned(
    database: Database, role: str, start: str, end: str, partitions: set[str]
) -> None:
    connection = await asyncpg.connect(getattr(database, role))
    async with connection.transaction():
        await connection.execute("SELECT set_config('switchboard.tenant', 'acme', true)")
        statement = await connection.fetchval("SELECT usage_statement($1, $2)", json.dumps(TENANT), ["day", "agent"])
        await connection.execute(f"PREPARE report (jsonb, uuid, uuid, bigint) AS {statement}")
        wanted, bounds = json.dumps(TENANT), ", ".join(f"uuid7_floor('{day}Z')" for day in (start, end))
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE report ('{wanted}', {bounds}, NULL)")
    await connection.close()
    assert set(scanned(json.loads(plan))) == partitions


@pytest.mark.usefixtures("months")
@pytest.mark.parametrize(("start", "end", "partitions"), SPANS)
async def test_only_the_partitions_of_the_span_are_read(
    database: Database, start: str, end: str, partitions: set[str]
) -> None:
    connection = await asyncpg.connect(database.app)
    async with connection.transaction():
        args = (json.dumps(TENANT), ["day"], at(start), at(end), None)
        await connection.fetch(queries["usage_report"], *args)
        rows = await connection.fetch(
            "SELECT relname FROM pg_stat_xact_user_tables "
            "WHERE relname LIKE 'llm_calls%' AND seq_scan + coalesce(idx_scan, 0) > 0"
        )
    await connection.close()
    assert {row["relname"] for row in rows} == partitions


def scanned(node: Any) -> Iterator[str]:
    """Relations of a plan."""
    if isinstance(node, list):
        for one in node:
            yield from scanned(one)
    elif isinstance(node, dict):
        if "Relation Name" in node:
            yield node["Relation Name"]
        for part in node.values():
            yield from scanned(part)
