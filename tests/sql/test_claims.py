"""The fence in Postgres: an attempt that was taken over commits nothing, but its calls are booked."""

from typing import Any

import msgspec
import pytest

from shared.db import Pool, jsonb
from shared.jobs import JobRecord
from sql import queries
from tests.sql.shapes import DEAD, a_call, a_turn


async def take_over(app: Pool, turn: dict[str, Any], claim: int) -> Any:
    args = ("alpha", turn["job_id"], turn["run"], turn["conversation_id"], 10, claim)
    return await app.fetchrow(queries["turn_takeover"], *args)


@pytest.fixture
def commit(app: Pool) -> Any:
    """The raw answer: `record` is NULL where there is no end."""

    async def commit(tenant: str, turn: dict[str, Any], query: str = "commit_turn") -> Any:
        return await app.fetchrow(queries[query], tenant, jsonb(turn))

    return commit


async def test_an_older_claim_ends_nothing_once_a_later_one_took_over(app: Pool, ops: Pool, commit: Any) -> None:
    turn = a_turn(claim=100, calls=[a_call()])
    assert (await take_over(app, turn, 200))["ended"] is None
    for query, end in (("commit_turn", turn), ("end_job", turn | DEAD)):
        refused = await commit("alpha", end, query=query)
        assert (refused["won"], refused["record"]) == (False, None)
    assert await ops.fetchval("SELECT count(*) FROM messages") == 0
    assert await ops.fetchval("SELECT count(*) FROM llm_calls") == 1, "it was paid for"

    won = await commit("alpha", turn | {"claim": 200, "calls": [a_call()], "reply": "mine"})
    assert won["won"]
    assert msgspec.json.decode(won["record"], type=JobRecord).reply == "mine"
    assert await ops.fetchval("SELECT count(*) FROM job_claims") == 0


async def test_a_stale_claim_that_comes_after_the_end_adopts_it(app: Pool, commit: Any) -> None:
    turn = a_turn(claim=100)
    await take_over(app, turn, 200)
    await commit("alpha", turn | {"claim": 200, "reply": "mine"})
    late = await commit("alpha", turn)
    assert not late["won"]
    assert msgspec.json.decode(late["record"], type=JobRecord).reply == "mine"


async def test_an_earlier_claim_cannot_take_back_what_a_later_one_took(app: Pool, commit: Any) -> None:
    turn = a_turn(claim=200)
    await take_over(app, turn, 300)
    await take_over(app, turn, 200)
    assert not (await commit("alpha", turn))["won"]
    assert (await commit("alpha", turn | {"claim": 300}))["won"]


async def test_a_takeover_finds_an_end_that_was_quicker(app: Pool, commit: Any) -> None:
    turn = a_turn(claim=100)
    await commit("alpha", turn)
    ended = (await take_over(app, turn, 200))["ended"]
    assert msgspec.json.decode(ended, type=JobRecord).state == "succeeded"
    assert not (await commit("alpha", turn | {"claim": 200}))["won"]


async def test_an_end_without_a_claim_is_not_fenced_and_runs_are_fenced_apart(app: Pool, commit: Any) -> None:
    turn = a_turn(claim=100)
    await take_over(app, turn, 200)
    assert (await commit("alpha", turn | DEAD | {"claim": None}, query="end_job"))["won"]
    again = turn | {"run": 2, "claim": 50}
    assert (await commit("alpha", again))["won"]
