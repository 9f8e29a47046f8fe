"""The books: exact money, partitions by the month of the call id, rows that are never lost for their date."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from shared.db import Pool, jsonb
from shared.ids import uuid7
from sql import queries
from tests.sql.shapes import a_call, a_failed_call, a_turn


def call_id_at(moment: datetime, rest: int = 1) -> str:
    unix_ms = round(moment.timestamp() * 1000)
    return str(UUID(int=unix_ms << 80 | 7 << 76 | 0b10 << 62 | rest))


async def book(app: Pool, *ids: str) -> None:
    turn = a_turn()
    assert await app.fetchval(
        queries["end_attempt"], "alpha", jsonb([a_failed_call(turn, call_id=call_id) for call_id in ids])
    ) == len(ids)


async def partition_of(ops: Pool, call_id: str) -> str:
    return str(await ops.fetchval("SELECT tableoid::regclass::text FROM llm_calls WHERE call_id = $1", call_id))


@pytest.mark.parametrize(
    ("nano_usd", "usd"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (380, "0.00000038"),
        (123_450, "0.00012345"),
        (9_007_199_254_740_993, "9007199.254740993"),
    ],
)
async def test_money_is_exact(commit: Any, ops: Pool, nano_usd: int, usd: str) -> None:
    _, record = await commit("alpha", a_turn(calls=[a_call(cost_nano_usd=nano_usd)]))
    assert record.cost_nano_usd == nano_usd
    assert await ops.fetchval("SELECT sum(usd) FROM llm_calls") == Decimal(usd)


async def test_a_row_keeps_everything_it_was_given(commit: Any, ops: Pool) -> None:
    call = a_call()
    turn = a_turn(calls=[call])
    await commit("alpha", turn)
    row = await ops.fetchrow(
        "SELECT to_jsonb(l) - 'started_at' - 'usd' || jsonb_build_object('started_us', to_unix_us(started_at)) AS all "
        "FROM llm_calls l"
    )
    head = {name: turn[name] for name in ("job_id", "run", "agent", "conversation_id", "user_id", "domain", "feature")}
    assert row is not None
    assert msgspec.json.decode(row["all"]) == call | head | {"tenant_id": "alpha"}


async def test_months_end_at_midnight_utc_whatever_the_sessions_time_zone(database: Any, app: Pool, ops: Pool) -> None:
    connection = await asyncpg.connect(database.ops, server_settings={"timezone": "Pacific/Auckland"})
    try:
        # Already November in Auckland.
        await connection.fetchval("SELECT make_llm_calls_partitions('2030-10-31 12:00+00', 4)")
    finally:
        await connection.close()
    wanted = {
        call_id_at(datetime(2030, 11, 1, tzinfo=UTC), 0): "llm_calls_2030_11",
        call_id_at(datetime(2030, 11, 30, 23, 59, 59, 999_000, tzinfo=UTC), (1 << 62) - 1): "llm_calls_2030_11",
        call_id_at(datetime(2030, 12, 1, tzinfo=UTC), 0): "llm_calls_2030_12",
        call_id_at(datetime(2030, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)): "llm_calls_2030_12",
        call_id_at(datetime(2031, 1, 1, tzinfo=UTC), 0): "llm_calls_2031_01",
        call_id_at(datetime(2031, 2, 1, tzinfo=UTC), 0): "llm_calls_default",
        call_id_at(datetime(2030, 10, 31, 23, 59, 59, 999_000, tzinfo=UTC)): "llm_calls_2030_10",
        call_id_at(datetime(2030, 9, 30, 23, 59, 59, 999_000, tzinfo=UTC)): "llm_calls_default",
    }
    await book(app, *wanted)
    assert {call_id: await partition_of(ops, call_id) for call_id in wanted} == wanted


async def test_a_migrated_database_has_partitions_for_now_and_the_next_months(app: Pool, ops: Pool) -> None:
    now = datetime.now(UTC)
    await book(app, call_id_at(now))
    assert await partition_of(ops, call_id_at(now)) == f"llm_calls_{now:%Y_%m}"
    assert await ops.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'llm_calls'::regclass") == 6


async def test_rows_the_default_partition_caught_move_to_their_month_when_it_is_made(app: Pool, ops: Pool) -> None:
    next_year = datetime(datetime.now(UTC).year + 2, 1, 31, tzinfo=UTC)
    moved, stays = call_id_at(next_year), call_id_at(next_year.replace(month=2, day=1))
    await book(app, moved, stays)
    assert {await partition_of(ops, moved), await partition_of(ops, stays)} == {"llm_calls_default"}
    before = await ops.fetch("SELECT * FROM llm_calls ORDER BY call_id")
    assert await ops.fetchval("SELECT make_llm_calls_partitions($1, 1)", next_year) == 1
    assert await partition_of(ops, moved) == f"llm_calls_{next_year:%Y_%m}"
    assert await partition_of(ops, stays) == "llm_calls_default"
    assert await ops.fetch("SELECT * FROM llm_calls ORDER BY call_id") == before


async def test_making_partitions_again_makes_none(ops: Pool) -> None:
    assert await ops.fetchval(queries["make_llm_calls_partitions"], 24) > 0
    assert await ops.fetchval(queries["make_llm_calls_partitions"], 24) == 0
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await ops.fetchval(queries["make_llm_calls_partitions"], 25)


async def test_a_partition_made_later_is_closed_too(database: Any, ops: Pool) -> None:
    await ops.fetchval("SELECT make_llm_calls_partitions('2040-01-01', 1)")
    for dsn in (database.app, database.ops):
        connection = await asyncpg.connect(dsn)
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch("SELECT * FROM llm_calls_2040_01")
        finally:
            await connection.close()


async def test_a_reports_bound_on_the_call_id_prunes_partitions_and_walks_the_index(database: Any, app: Pool) -> None:
    """And row-level security costs one comparison for the statement, none for a row."""
    now = datetime.now(UTC)
    for tenant in ("alpha", "beta"):
        calls = [a_failed_call(a_turn(), call_id=call_id_at(now, number)) for number in range(1, 500)]
        moved = [call | {"call_id": uuid7()} for call in calls] if tenant == "beta" else calls
        await app.fetchval(queries["end_attempt"], tenant, jsonb(moved))
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(
            "ANALYZE llm_calls; SET ROLE switchboard_app; SET plan_cache_mode = force_generic_plan"
        )
        await connection.execute("SELECT set_config('switchboard.tenant', 'alpha', false)")
        await connection.execute(
            "PREPARE spent (text, timestamptz) AS SELECT sum(usd) FROM llm_calls "
            "WHERE tenant_id = $1 AND call_id >= uuid7_floor($2)"
        )
        rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) EXECUTE spent ('alpha', '{now:%Y-%m}-01')")
    finally:
        await connection.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Subplans Removed: 1" in plan, plan  # the month before
    assert re.search(r"Index Cond: \(.*call_id >= ", plan), plan
    assert "One-Time Filter: (current_setting('switchboard.tenant'::text, true) = $1)" in plan, plan


async def test_a_call_of_an_earlier_run_keeps_its_run(commit: Any, ops: Pool) -> None:
    await commit("alpha", a_turn(run=2, calls=[a_call(run=1), a_call()]))
    assert [row["run"] for row in await ops.fetch("SELECT run FROM llm_calls ORDER BY run")] == [1, 2]
