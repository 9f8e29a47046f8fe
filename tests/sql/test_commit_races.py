"""Two ends of one job at the same instant, in both orders; many turns at once; a crash in the middle."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from shared.db import Pool, jsonb
from shared.jobs import JobRecord
from sql import queries
from tests.sql.shapes import DEAD, a_call, a_failed_call, a_turn


@pytest.fixture
async def first(database: Any) -> AsyncIterator[asyncpg.Connection]:
    """The worker that is first at the row, and holds its transaction open as long as the test wants."""
    connection = await asyncpg.connect(database.app)
    yield connection
    await connection.close()


def both(turn: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("commit_turn", turn), ("end_job", turn | DEAD)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0), (1, 1)], ids=str)
@pytest.mark.parametrize("fate", ["commits", "crashes"])
async def test_the_second_waits_for_the_first_and_adopts_its_end_or_takes_its_place(
    first: asyncpg.Connection, commit: Any, ops: Pool, eventually: Any, order: tuple[int, int], fate: str
) -> None:
    turn = a_turn(memory=True, callback_url="https://example.org/hook")
    (query_1, end_1), (query_2, end_2) = (both(turn)[index] for index in order)
    calls = [a_call(attempt=1)], [a_call(attempt=2)]

    transaction = first.transaction()
    await transaction.start()
    held = await first.fetchrow(queries[query_1], "alpha", jsonb(end_1 | {"calls": calls[0]}))
    assert held["won"]
    second = asyncio.create_task(commit("alpha", end_2 | {"calls": calls[1]}, query=query_2))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    await eventually(lambda: ops.fetchval(waiting))
    assert not second.done()
    if fate == "commits":
        await transaction.commit()
    else:
        await transaction.rollback()
    won, record = await second

    winner = end_1 if fate == "commits" else end_2
    assert won is (fate == "crashes")
    assert (record.state, record.reply) == (winner["state"], winner["reply"])
    assert record.cost_nano_usd == (246_900 if fate == "commits" else 123_450)
    for table in ("jobs", "deliveries", "memory_outbox", "conversations"):
        assert await ops.fetchval(f"SELECT count(*) FROM {table}") == 1, table  # noqa: S608 - a table name of our own
    said = {"user", "assistant"} if winner["state"] == "succeeded" else {"user"}
    assert Counter(row["role"] for row in await ops.fetch("SELECT role FROM messages")) == Counter(said)


async def test_many_ends_of_one_job_make_one_winner_and_one_truth(commit: Any, ops: Pool) -> None:
    turn = a_turn(callback_url="https://example.org/hook")
    ends = [both(turn)[number % 2] for number in range(24)]
    results = await asyncio.gather(*(commit("alpha", end | {"calls": [a_call()]}, query=query) for query, end in ends))
    assert sum(won for won, _ in results) == 1
    assert len({(record.state, record.reply) for _, record in results}) == 1
    assert await ops.fetchval("SELECT count(*) FROM llm_calls") == 24
    assert await ops.fetchval("SELECT count(*) FROM deliveries") == 1


async def test_turns_of_one_conversation_get_places_without_gaps(commit: Any, ops: Pool) -> None:
    turns = [a_turn(callback_url="https://example.org/hook") for _ in range(30)]
    await asyncio.gather(*(commit("alpha", turn) for turn in turns))
    places = [row["seq"] for row in await ops.fetch("SELECT seq FROM messages ORDER BY seq")]
    assert places == list(range(1, 61))
    sequences = [row["sequence"] for row in await ops.fetch("SELECT sequence FROM deliveries ORDER BY sequence")]
    assert sequences == list(range(1, 31))


async def test_two_users_who_start_one_conversation_together_leave_one_owner(commit: Any, ops: Pool) -> None:
    results = await asyncio.gather(
        *(commit("alpha", a_turn(user_id=f"user-{number}")) for number in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, Exception) for result in results) == 7
    assert {getattr(result, "code", None) for result in results if isinstance(result, Exception)} == {
        "conversation_owner"
    }
    assert await ops.fetchval("SELECT count(*) FROM messages") == 2


async def test_commits_and_attempts_that_share_rows_never_deadlock(commit: Any, app: Pool, ops: Pool) -> None:
    """Same user in all conversations, the same calls posted from several sides in opposite orders."""
    turns = [a_turn(conversation_id=f"conversation-{number % 3}") for number in range(12)]
    calls = {turn["job_id"]: [a_failed_call(turn) for _ in range(4)] for turn in turns}
    every = [call for some in calls.values() for call in some]
    for _ in range(3):
        await asyncio.gather(
            *(commit("alpha", turn | {"calls": calls[turn["job_id"]][::-1]}) for turn in turns),
            *(app.fetchval(queries["end_attempt"], "alpha", jsonb(rows)) for rows in (every, every[::-1], every[::2])),
        )
    assert await ops.fetchval("SELECT count(*) FROM llm_calls") == len(every)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await ops.fetchval(deadlocks) == 0


async def test_turn_after_turn_is_won_and_booked_and_shows_what_one_costs(app: Pool, ops: Pool) -> None:
    """Prints the time of a whole commit (`-s`); figures that must hold are the benchmarks' business."""
    took_ms = []
    for number in range(200):
        turn = jsonb(a_turn(conversation_id=f"conversation-{number % 20}", calls=[a_call(), a_call()]))
        started_s = time.perf_counter()
        row = await app.fetchrow(queries["commit_turn"], "alpha", turn)
        took_ms.append((time.perf_counter() - started_s) * 1000)
        assert row is not None
        assert row["won"]
    print(f"commit_turn: median {statistics.median(took_ms):.2f} ms, longest {max(took_ms):.2f} ms")  # noqa: T201
    assert await ops.fetchval("SELECT count(*) FROM llm_calls") == 400


async def test_a_worker_killed_after_its_commit_finds_it_again(first: asyncpg.Connection, commit: Any) -> None:
    """The server has committed, the answer never arrived: the same statement again changes nothing."""
    turn = a_turn(calls=[a_call()])
    row = await first.fetchrow(queries["commit_turn"], "alpha", jsonb(turn))
    first.terminate()
    assert await commit("alpha", turn) == (False, msgspec.json.decode(row["record"], type=JobRecord))
