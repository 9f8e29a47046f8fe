"""How a turn fails: which errors are tried again, what the caller is told, and what the books say of it."""

from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from agents.api import Context, Reply, Turn
from agents.support import Support
from shared.scripts import read_events
from tests.turn.deployment import Deployment


async def statuses(deployment: Deployment, job_id: str) -> list[str]:
    return [str(row["status"]) for row in await deployment.rows("llm_calls", job_id)]


async def test_a_rate_limit_is_waited_out_and_tried_again(deployment: Deployment) -> None:
    await deployment.behave({"faults": [{"status": 429, "retry_after_s": 0.3}]})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts, record.error) == ("succeeded", 2, None)
    assert record.finished_us is not None
    assert record.started_us is not None
    assert record.finished_us - record.started_us >= 300_000
    assert await statuses(deployment, job_id) == ["error", "ok"]
    _, events = await read_events(deployment.commands, job_id)
    assert [event.type for event in events if event.type != "message.delta"] == [
        "job.started", "job.retrying", "attempt.reset", "job.started", "job.ended",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 529}, "cut_stream", "end_early", "malformed", "stream_error"]
)
async def test_a_provider_that_fails_once_costs_an_attempt_not_the_job(deployment: Deployment, fault: Any) -> None:
    await deployment.behave({"faults": [fault], "output_tokens": 30, "tokens_per_s": 500})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    rows = await deployment.rows("llm_calls", job_id)
    served = sorted((await deployment.served())["requests"], key=lambda call: call["at_us"])
    assert [row["input_tokens"] for row in rows] == [call["input_tokens"] for call in served]
    assert rows[0]["status"] in ("error", "cut")
    assert rows[0]["estimated"] is (rows[0]["status"] == "cut")
    assert record.cost_nano_usd == sum(row["cost_nano_usd"] for row in rows)


async def test_what_was_seen_of_a_cut_stream_is_booked(deployment: Deployment) -> None:
    await deployment.behave({"faults": [{"cut_stream": True, "after_tokens": 12}], "output_tokens": 30})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        await deployment.ended(job_id)
    cut, _ = await deployment.rows("llm_calls", job_id)
    assert cut["status"] == "cut"
    assert cut["output_tokens"] == 12


async def test_after_its_last_attempt_a_job_is_dead_with_all_that_happened_and_the_next_one_goes_on(
    deployment: Deployment,
) -> None:
    await deployment.behave({"match": "doomed", "faults": [{"status": 500, "times": 100}]})
    async with deployment.worker():
        job_id = await deployment.say("doomed")
        follower = await deployment.say("fine")
        record, after = await deployment.ended(job_id), await deployment.ended(follower)
    assert (record.state, record.attempts, after.state) == ("dead", 4, "succeeded")
    assert record.error is not None
    assert record.error.code == "upstream_unavailable"
    (dead,) = await deployment.rows("dead_jobs", job_id)
    assert [error["attempt"] for error in msgspec.json.decode(dead["attempt_errors"])] == [1, 2, 3, 4]
    assert msgspec.json.decode(dead["payload"])["message"] == "doomed"
    assert await statuses(deployment, job_id) == ["error"] * 4
    assert [m["role"] for m in await deployment.rows("messages", job_id)] == ["user"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 400}, "upstream_rejected"),
        ({"status": 401}, "upstream_rejected"),
        ({"finish": "refusal"}, "refusal"),
        ({"finish": "content_filter"}, "content_filter"),
    ],
)
async def test_what_will_not_get_better_is_final_at_once(deployment: Deployment, fault: Any, code: str) -> None:
    await deployment.behave({"faults": [fault]})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.state, record.attempts) == ("dead", 1)
    assert record.error is not None
    assert record.error.code == code


async def test_a_reply_cut_at_its_bound_succeeds_and_says_so(deployment: Deployment) -> None:
    await deployment.behave({"output_tokens": 900})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.state, record.incomplete) == ("succeeded", "max_output_tokens")
    assert record.usage is not None
    assert record.usage.output_tokens == 500


async def test_a_bound_used_up_by_reasoning_gets_headroom_once(deployment: Deployment) -> None:
    await deployment.behave({"reasoning_tokens": 700, "output_tokens": 20})
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 1)
    assert await statuses(deployment, job_id) == ["ok", "ok"]


async def test_a_bound_used_up_by_reasoning_twice_is_final(deployment: Deployment) -> None:
    await deployment.behave({"reasoning_tokens": 9_000, "output_tokens": 20})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert record.state == "dead"
    assert record.error is not None
    assert record.error.code == "empty_reply"


async def test_a_silent_provider_is_given_up_on_and_asked_again(deployment: Deployment) -> None:
    await deployment.behave({"faults": ["hang"]})
    async with deployment.worker(model_timeout_s=0.3):
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    hung, _ = await deployment.rows("llm_calls", job_id)
    assert (hung["status"], hung["estimated"]) == ("cut", True)
    assert hung["input_tokens"] > 0


async def test_an_unknown_agent_is_dead_with_a_sentence(deployment: Deployment) -> None:
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello", agent="nobody"))
    assert record.state == "dead"
    assert record.error is not None
    assert record.error.code == "unknown_agent"


async def test_a_model_without_a_price_is_not_called(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Support, "models", ("openai:gpt-unheard-of",))
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert record.state == "dead"
    assert record.error is not None
    assert record.error.code == "price_unknown"
    assert (await deployment.served())["calls"] == 0


async def test_an_agent_that_breaks_is_tried_again_and_then_dead_with_its_traceback(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(self: Support, turn: Turn, ctx: Context) -> Reply:
        raise ZeroDivisionError("the secret message text")

    monkeypatch.setattr(Support, "answer", answer)
    async with deployment.worker():
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("dead", 4)
    assert record.error is not None
    assert "secret" not in record.error.message
    (dead,) = await deployment.rows("dead_jobs", job_id)
    assert "ZeroDivisionError" in dead["traceback"]


async def test_anthropic_answers_where_it_is_the_provider(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Support, "models", ("anthropic:claude-haiku-4-5",))
    await deployment.behave({"faults": [{"status": 529}]})
    key, url = SecretStr("sk-test"), str(deployment.settings.openai_base_url).removesuffix("/v1")
    async with deployment.worker(anthropic_api_key=key, anthropic_base_url=url):
        job_id = await deployment.say("hello")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    rows = await deployment.rows("llm_calls", job_id)
    assert [(row["provider"], row["status"]) for row in rows] == [("anthropic", "error"), ("anthropic", "ok")]
    call = (await deployment.served())["requests"][-1]
    assert rows[1]["input_tokens"] == call["input_tokens"]
