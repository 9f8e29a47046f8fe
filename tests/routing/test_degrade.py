"""Degrade before failing: what users are told when the budget is spent or no provider answers, and how it is marked."""

import json
from typing import Any

import pytest

from agents.support import Support
from shared.config import DEGRADED_REPLY
from shared.scripts import read_events
from tests.turn.deployment import TENANT, Deployment

DOWN = {"faults": [{"status": 500, "times": 1_000}]}


async def settle_tenant(deployment: Deployment, **settings: Any) -> None:
    await deployment.books.execute(
        "UPDATE tenants SET settings = $2::jsonb WHERE tenant_id = $1", TENANT, json.dumps(settings)
    )


async def test_when_every_provider_is_down_the_last_attempt_answers_with_a_sentence(deployment: Deployment) -> None:
    await deployment.behave(DOWN)
    async with deployment.worker(breaker_failures=0):
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts, record.degraded) == ("succeeded", 4, "providers")
    assert record.reply == DEGRADED_REPLY
    assert record.resource()["degraded"] == "providers"
    rows = await deployment.rows("llm_calls", job_id)
    assert len(rows) == 8, "every retry asked for a real answer first"
    assert record.cost_nano_usd == 0
    (job,) = await deployment.rows("jobs", job_id)
    assert (job["degraded"], job["reply"], job["state"]) == ("providers", DEGRADED_REPLY, "succeeded")
    assert await deployment.rows("dead_jobs", job_id) == []
    _, events = await read_events(deployment.commands, job_id)
    shown = [event.data for event in events if event.type == "message.delta"]
    assert shown == [json.dumps({"delta": DEGRADED_REPLY}, separators=(",", ":"))]


async def test_a_spent_budget_answers_at_once_and_asks_nobody(deployment: Deployment) -> None:
    await settle_tenant(deployment, budgets={"user_month_usd": "0.000001"})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts, record.degraded) == ("succeeded", 1, "budget")
    assert (record.reply, record.cost_nano_usd) == (DEGRADED_REPLY, 0)
    assert (await deployment.served())["calls"] == 0
    assert await deployment.rows("llm_calls", job_id) == []


async def test_what_no_model_said_is_no_history_to_one(deployment: Deployment) -> None:
    await deployment.behave({"match": "first", **DOWN}, {"reply": "{count} {last}"})
    async with deployment.worker(max_attempts=1):
        first = await deployment.say("first")
        assert (await deployment.ended(first)).degraded == "providers"
        second = await deployment.ended(await deployment.say("second"))
    assert second.reply == "2 second"
    assert [m["role"] for m in await deployment.rows("messages", first)] == ["user"]
    (asked,) = [call for call in (await deployment.served())["requests"] if call["user_text"] == "second"]
    assert DEGRADED_REPLY not in str(asked)


@pytest.mark.parametrize("whose", ["tenant", "agent"])
async def test_the_sentence_is_the_tenants_else_the_agents(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    monkeypatch.setattr(Support, "degraded_reply", "the agent's")
    if whose == "tenant":
        await settle_tenant(deployment, degraded_reply="the tenant's")
    await deployment.behave(DOWN)
    async with deployment.worker(max_attempts=1):
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.degraded, record.reply) == ("providers", f"the {whose}'s")


async def test_switched_off_the_job_dies_and_can_be_retried(deployment: Deployment) -> None:
    await deployment.behave(DOWN)
    async with deployment.worker(max_attempts=1, degraded_reply="none"):
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.degraded, record.reply) == ("dead", None, None)
    assert len(await deployment.rows("dead_jobs", job_id)) == 1


@pytest.mark.parametrize("fault", [{"finish": "refusal"}, {"status": 400}], ids=str)
async def test_what_is_nobodys_outage_is_not_dressed_up(deployment: Deployment, fault: dict[str, Any]) -> None:
    await deployment.behave({"faults": [fault]})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.state, record.degraded) == ("dead", None)


async def test_text_that_was_shown_of_a_failed_answer_is_taken_back_first(deployment: Deployment) -> None:
    await deployment.behave({"faults": [{"cut_stream": True, "after_tokens": 5, "times": 9}], "output_tokens": 20})
    async with deployment.worker(max_attempts=1):
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert record.degraded == "providers"
    _, events = await read_events(deployment.commands, job_id)
    kinds = [event.type for event in events]
    assert kinds[-3:] == ["attempt.reset", "message.delta", "job.ended"]
    assert json.loads(events[-2].data)["delta"] == record.reply


async def test_a_kept_answer_to_the_same_question_is_better_than_a_sentence(deployment: Deployment) -> None:
    await deployment.behave({"reply": "We open at nine."})
    async with deployment.worker(cache_ttl_s=300):
        await deployment.ended(await deployment.say("When do you open?", conversation="c1"))
    await make_stale(deployment)
    await deployment.behave(DOWN)
    async with deployment.worker(cache_ttl_s=300, max_attempts=1):
        record = await deployment.ended(await deployment.say("When do you open?", conversation="c2"))
        other = await deployment.ended(await deployment.say("When do you close?", conversation="c3"))
    assert (record.degraded, record.reply, record.cost_nano_usd) == ("providers", "We open at nine.", 0)
    assert (other.degraded, other.reply) == ("providers", DEGRADED_REPLY)


async def make_stale(deployment: Deployment) -> None:
    """What is kept is too old to be an answer, and not too old to be better than none."""
    redis = deployment.commands.redis
    (key,) = await redis.keys("sb:cache:*")
    kept_at, answer = (await redis.get(key)).split(b" ", 1)
    await redis.set(key, b"%d %s" % (int(kept_at) - 400_000, answer), keepttl=True)


async def test_merged_messages_show_that_their_reply_is_degraded(deployment: Deployment) -> None:
    await deployment.behave(DOWN)
    first = await deployment.say("one", policy="merge", merge_window_s=0.1)
    second = await deployment.say("two", policy="merge", merge_window_s=0.1)
    async with deployment.worker(max_attempts=1):
        records = [await deployment.ended(job_id) for job_id in (first, second)]
    assert [record.state for record in records] == ["merged", "succeeded"]
    assert [record.degraded for record in records] == ["providers", "providers"]
