"""A first attempt's record is put together from what it has just written; it must be the one the books would give."""

from typing import Any

import pytest

from shared.db import Pool, jsonb
from sql import queries
from tests.sql.shapes import CREATED_US, DEAD, a_call, a_failed_call, a_turn

FIRST = {"claim": CREATED_US + 1}
"""A claim at the moment the job was first started."""
HOOK = {"callback_url": "https://example.org/hook"}


@pytest.fixture
def end(app: Pool) -> Any:
    """Ends a turn: whether it won, and the record's very text."""

    async def run(turn: dict[str, Any]) -> tuple[bool, str]:
        query = "commit_turn" if turn["state"] == "succeeded" else "end_job"
        row = await app.fetchrow(queries[query], "alpha", jsonb(turn))
        assert row is not None
        return row["won"], row["record"]

    return run


@pytest.mark.parametrize(
    "fields",
    [
        {"calls": [a_call()]},
        {"calls": [a_call(), a_call(kind="embedding", output_tokens=0), a_call(cost_nano_usd=2**60)]},
        {"calls": []},
        {"calls": None, "user_id": None, "metadata": None, "incomplete": "max_output_tokens"},
        {"calls": [a_call()], "memory": True, **HOOK},
        {"calls": [a_call(status="error")], **DEAD, **HOOK},
        {"calls": [], **DEAD, "state": "cancelled"},
        {"calls": [], **DEAD, "state": "rejected"},
    ],
)
async def test_it_says_what_the_books_say(end: Any, app: Pool, ops: Pool, fields: dict[str, Any]) -> None:
    turn = a_turn(**(FIRST | fields))
    won, record = await end(turn)
    assert won
    assert record == await app.fetchval(queries["job_record"], "alpha", turn["job_id"])
    assert [row["body"] for row in await ops.fetch("SELECT body FROM deliveries")] in ([], [record])


async def test_it_counts_a_call_that_was_posted_before(end: Any, app: Pool) -> None:
    """A worker that left after it had posted a failed attempt: it was not counted; the row stands in Redis too."""
    turn = a_turn(**FIRST)
    posted = a_failed_call(turn)
    await app.fetchval(queries["end_attempt"], "alpha", jsonb([posted]))
    _, record = await end(turn | {"calls": [posted, a_call()]})
    assert '"cost_nano_usd": 246900' in record
    assert record == await app.fetchval(queries["job_record"], "alpha", turn["job_id"])


async def test_a_later_attempt_shows_the_calls_of_earlier_ones(end: Any, app: Pool) -> None:
    turn = a_turn(claim=CREATED_US + 9, attempts=2)
    await app.fetchval(queries["end_attempt"], "alpha", jsonb([a_failed_call(turn)]))
    _, record = await end(turn | {"calls": [a_call()]})
    assert '"cost_nano_usd": 246900' in record


async def test_repeated_it_changes_nothing(end: Any, ops: Pool) -> None:
    turn = a_turn(**FIRST, **HOOK, calls=[a_call()])
    _, record = await end(turn)
    assert await end(turn) == (False, record)
    assert await ops.fetchval("SELECT count(*) FROM deliveries") == 1


async def test_a_turn_reads_no_rows_of_other_jobs(app: Pool, ops: Pool) -> None:
    """In a database without statistics the planner once took an index of all the tenant's jobs."""
    async with app.connection() as connection:  # which counts for itself
        for number in range(20):
            turn = a_turn(**FIRST, conversation_id=f"c{number}", calls=[a_call()])
            await connection.fetchrow(queries["turn_context"], "alpha", turn["job_id"], 1, turn["conversation_id"], 10)
            await connection.fetchrow(queries["commit_turn"], "alpha", jsonb(turn))
        await connection.execute("SELECT pg_stat_force_next_flush()")
    read = await ops.fetch(
        "SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'jobs' AND idx_tup_read > 0"
    )
    assert [tuple(row) for row in read] == []
    walked = await ops.fetchval("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs'")
    assert walked == 0
