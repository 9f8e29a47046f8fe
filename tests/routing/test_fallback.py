"""The next model answers when one fails: in the same attempt, booked by itself, and never after text was shown."""

from typing import Any

import pytest

from agents.support import Support
from shared.scripts import read_events
from tests.routing.conftest import ANTHROPIC, OPENAI, calls_of
from tests.turn.deployment import Deployment


async def test_the_second_model_answers_in_the_same_attempt_and_both_calls_are_booked(deployment: Deployment) -> None:
    await deployment.behave({"model": OPENAI, "faults": [{"status": 500}]})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts, record.degraded) == ("succeeded", 1, None)
    rows = await deployment.rows("llm_calls", job_id)
    assert [(row["model"], row["status"]) for row in rows] == [(OPENAI, "error"), (ANTHROPIC, "ok")]
    assert record.cost_nano_usd == sum(row["cost_nano_usd"] for row in rows) == rows[1]["cost_nano_usd"]
    (answered,) = await calls_of(deployment, ANTHROPIC)
    assert (rows[1]["input_tokens"], rows[1]["output_tokens"]) == (answered["input_tokens"], answered["output_tokens"])
    assert [m["role"] for m in await deployment.rows("messages", job_id)] == ["user", "assistant"]
    _, events = await read_events(deployment.commands, job_id)
    assert "attempt.reset" not in [event.type for event in events], "its readers saw nothing of it"
    await nothing_is_held(deployment)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401},
        {"status": 404},
        {"status": 429, "retry_after_s": 30},
        {"status": 429, "code": "insufficient_quota"},
        {"status": 529},
        {"end_early": True, "after_tokens": 0},
        {"stream_error": True, "after_tokens": 0},
        {"malformed": True, "after_tokens": 0},
    ],
    ids=str,
)
async def test_every_fault_of_a_provider_and_of_our_account_there_passes_on(
    deployment: Deployment, fault: dict[str, Any]
) -> None:
    await deployment.behave({"model": OPENAI, "faults": [fault]})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 1)
    assert [row["model"] for row in await deployment.rows("llm_calls", job_id)] == [OPENAI, ANTHROPIC]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_is_wrong_is_asked_of_nobody_else(deployment: Deployment, status: int) -> None:
    await deployment.behave({"model": OPENAI, "faults": [{"status": status}]})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("dead", 1)
    assert await calls_of(deployment, ANTHROPIC) == []


async def test_after_text_was_shown_the_attempt_fails_instead(deployment: Deployment) -> None:
    await deployment.behave({"faults": [{"cut_stream": True, "after_tokens": 5}], "output_tokens": 20})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    assert [row["model"] for row in await deployment.rows("llm_calls", job_id)] == [OPENAI, OPENAI]
    _, events = await read_events(deployment.commands, job_id)
    assert "attempt.reset" in [event.type for event in events]


async def test_each_attempt_asks_every_model_once_and_the_retries_are_the_policys(deployment: Deployment) -> None:
    await deployment.behave({"faults": [{"status": 500, "times": 3}]})
    async with deployment.worker(breaker_failures=0):
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    rows = await deployment.rows("llm_calls", job_id)
    assert [(row["attempt"], row["model"], row["status"]) for row in rows] == [
        (1, OPENAI, "error"), (1, ANTHROPIC, "error"), (2, OPENAI, "error"), (2, ANTHROPIC, "ok"),
    ]  # fmt: skip


async def test_the_agents_time_bounds_the_whole_chain(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Support, "timeout_s", 3.0)
    await deployment.behave({"model": OPENAI, "faults": ["hang"]}, {"model": ANTHROPIC, "faults": ["hang"]})
    async with deployment.worker(max_attempts=1, model_idle_timeout_s=2.0):
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    rows = await deployment.rows("llm_calls", job_id)
    assert [(row["model"], row["status"]) for row in rows] == [(OPENAI, "cut"), (ANTHROPIC, "aborted")]
    assert record.degraded == "providers"


async def nothing_is_held(deployment: Deployment) -> None:
    redis = deployment.commands.redis
    for key in await redis.keys("sb:spent:*"):
        usd_held, tok_held = await redis.hmget(key, "usd_held", "tok_held")
        assert (int(usd_held), int(tok_held)) == (0, 0), key
