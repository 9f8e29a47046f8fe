"""The books when things go wrong between Redis, the provider and Postgres."""

from typing import Any

import msgspec
import pytest

from shared import keys
from shared.errors import Unavailable
from shared.ids import uuid7
from tests.ledger.agreement import read_counters
from tests.turn.deployment import Deployment
from workers.ledger.book import LedgerRow
from workers.ledger.purse import Answer, Held, Purse
from workers.queue.scripts import Claimed
from workers.turn.store import TurnStore


async def test_a_reservation_whose_answer_was_lost_is_no_charge(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Purse.reserve
    lost: list[str] = []

    async def lose_one_answer(self: Purse, job: Claimed, *args: Any, **kwargs: Any) -> Answer:
        answer = await reserve(self, job, *args, **kwargs)
        if isinstance(answer, Held) and not lost:
            lost.append(job.id)
            raise Unavailable("Redis cannot be reached")
        return answer

    monkeypatch.setattr(Purse, "reserve", lose_one_answer)
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 1), "waiting for Redis is no attempt"
    rows = await deployment.rows("llm_calls", job_id)
    assert [row["status"] for row in rows] == ["ok"]
    assert (await deployment.served())["calls"] == 1
    assert not await deployment.commands.redis.exists(keys.calls(job_id))


async def hold(deployment: Deployment, row: LedgerRow) -> None:
    """What a reservation leaves in Redis, of a call charged to the counters that are there."""
    redis = deployment.commands.redis
    scopes = [f"sb:spent:{name}" for name in await read_counters(redis)]
    epoch = await redis.hget(keys.MONEY, "epoch")  # type: ignore[misc]  # redis-py types both worlds at once
    for scope in scopes:
        await redis.hincrby(scope, "usd_held", 50)  # type: ignore[misc]
        await redis.hincrby(scope, "tok_held", 60)  # type: ignore[misc]
    held = {"of": 0, "usd": "50", "tok": "60", "epoch": epoch.decode(), "scopes": scopes, "slot": ""}
    fields = {row.call_id: msgspec.json.encode(row), row.call_id + keys.HOLD: msgspec.json.encode(held)}
    await redis.hset(keys.calls(row.job_id), mapping=fields)  # type: ignore[misc]


async def test_open_calls_are_posted_also_when_the_job_turns_out_to_be_over(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = TurnStore.end
    died: list[str] = []

    async def die_after_commit(self: TurnStore, *args: object) -> object:
        record = await end(self, *args)  # type: ignore[arg-type]  # passed on as they came
        if not died:
            died.append(record.id)
            row = LedgerRow(
                call_id=uuid7(), job_id=record.id, run=1, attempt=1, agent="support",
                conversation_id="c1", user_id="u1", domain=None, feature=None, provider="openai",
                model="gpt-5.4-mini", started_us=1_795_246_200_000_000, input_tokens=7, cost_nano_usd=9,
            )  # fmt: skip
            await hold(deployment, row)
            raise RuntimeError("a crash between commit and finish")
        return record

    monkeypatch.setattr(TurnStore, "end", die_after_commit)
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert record.state == "succeeded"
    rows = await deployment.rows("llm_calls", job_id)
    assert sorted(str(row["status"]) for row in rows) == ["lost", "ok"]
    assert len(await deployment.rows("jobs", job_id)) == 1
