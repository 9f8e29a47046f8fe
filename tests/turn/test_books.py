"""The books when things go wrong between Redis, the provider and Postgres."""

from collections.abc import Mapping

import msgspec
import pytest

from shared import keys
from shared.errors import Unavailable
from tests.turn.deployment import Deployment
from workers.ledger.book import LedgerRow
from workers.queue.scripts import Claimed, QueueScripts
from workers.turn.store import TurnStore


async def test_a_reservation_whose_answer_was_lost_is_no_charge(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = QueueScripts.book
    lost: list[str] = []

    async def lose_one_answer(self: QueueScripts, job: Claimed, rows: Mapping[str, bytes]) -> bool:
        ours = await book(self, job, rows)
        if not lost:
            lost.extend(rows)
            raise Unavailable("Redis cannot be reached")
        return ours

    monkeypatch.setattr(QueueScripts, "book", lose_one_answer)
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 1), "waiting for Redis is no attempt"
    rows = await deployment.rows("llm_calls", job_id)
    assert [row["status"] for row in rows] == ["ok"]
    assert (await deployment.served())["calls"] == 1
    assert not await deployment.commands.redis.exists(keys.calls(job_id))


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
                call_id="01a1fd27-60c5-74e7-b4ff-4d8275004fae", job_id=record.id, run=1, attempt=1, agent="support",
                conversation_id="c1", user_id="u1", domain=None, feature=None, provider="openai",
                model="gpt-5.4-mini", started_us=1_795_246_200_000_000, input_tokens=7, cost_nano_usd=9,
            )  # fmt: skip
            await deployment.commands.redis.hset(keys.calls(record.id), row.call_id, msgspec.json.encode(row))
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
