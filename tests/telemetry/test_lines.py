"""One wide line per request and per job, that lead to each other; and nowhere what anybody said."""

from typing import Any

import httpx
import pytest

from agents.api import Context, Reply, Turn
from agents.support import Support
from shared.config import Settings
from shared.ids import uuid7
from tests.conftest import Eventually
from tests.ingress.harness import MESSAGES, Running, accepted
from tests.telemetry.conftest import TOKEN, Lines
from tests.telemetry.unkind import unkind_provider
from tests.turn.deployment import TENANT, Deployment

CANARY = "xylophone penguin"


async def test_the_lines_of_a_request_and_its_job_lead_to_each_other(
    ingress: Running, deployment: Deployment, lines: Lines
) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with ingress.client() as client, deployment.worker():
        client.headers.update({"x-request-id": "r-1", "traceparent": traceparent})
        job = await accepted(client, user_id="ada")
        record = await deployment.ended(job["id"])
    (request,) = lines.all("request")
    (line,) = lines.all("job")
    for name, value in {
        "request_id": "r-1",
        "job_id": job["id"],
        "conversation_id": job["conversation_id"],
        "tenant": TENANT,
        "agent": "support",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }.items():
        assert (request[name], line[name]) == (value, value)
    told = ("method", "route", "status", "outcome")
    assert [request[name] for name in told] == [
        "POST", "/v1/agents/{agent_id}/messages", 202, "accepted",
    ]  # fmt: skip
    assert request["duration_ms"] > 0
    assert {name: line[name] for name in ("state", "queue", "attempt", "run", "model_calls", "provider", "model")} == {
        "state": "succeeded", "queue": "default", "attempt": 1, "run": 1,
        "model_calls": 1, "provider": "openai", "model": "gpt-5.4-mini",
    }  # fmt: skip
    assert record.usage is not None
    assert (line["input_tokens"], line["output_tokens"]) == (record.usage.input_tokens, record.usage.output_tokens)
    assert (line["cost_usd"], line["code"], bool(line["worker"])) == (record.resource()["cost_usd"], None, True)
    assert 0 <= line["waited_ms"] <= line["first_token_ms"] <= line["total_ms"]
    assert line["duration_ms"] <= line["total_ms"]


async def test_a_conversation_whose_name_somebody_chose_is_a_digest_in_every_line(
    ingress: Running, deployment: Deployment, lines: Lines
) -> None:
    """It may be an e-mail address or a telephone number, and lines outlive whoever is erased."""
    async with ingress.client() as client, deployment.worker():
        for text in ("one", "two"):
            job = await accepted(client, text, conversation_id="ada@example.com", user_id="ada")
            await deployment.ended(job["id"])
            await client.get(f"/v1/jobs/{job['id']}")
    named = {line["conversation_id"] for event in ("request", "job") for line in lines.all(event)}
    assert len(named) == 1
    assert named.pop().startswith("~")
    assert "example.com" not in lines.text


async def test_a_refused_request_names_its_problem(ingress: Running, lines: Lines) -> None:
    async with ingress.client() as client, ingress.client(None) as nobody:
        await client.post(MESSAGES, json={"message": ""})
        await nobody.get(f"/v1/jobs/{uuid7()}")
        await nobody.get("/what/is/ada@example.com")
    invalid, unauthorized, unmatched = lines.all("request")
    assert (invalid["status"], invalid["problem"], invalid["tenant"]) == (422, "invalid_request", TENANT)
    assert (unauthorized["status"], unauthorized["problem"]) == (401, "unauthorized")
    assert unauthorized["route"] == "/v1/jobs/{job_id}"
    assert "example.com" not in lines.text
    assert (unmatched["status"], unmatched["route"], unmatched["path"]) == (404, "unmatched", "/what/is/…")


async def test_a_probe_or_scrape_that_went_well_is_no_line_of_everyday(ingress: Running, lines: Lines) -> None:
    async with ingress.client(None) as platform:
        for path in ("/health/live", "/health/ready", "/metrics"):
            await platform.get(path, headers={"authorization": f"Bearer {TOKEN}"})
        await platform.get("/health/stack")
        await platform.get("/metrics")
    *well, stack, refused = lines.all("request")
    assert {(line["status"], line["level"]) for line in well} == {(200, "debug")}
    assert (stack["status"], stack["level"]) == (503, "info")
    assert stack["unwell"] == {"workers:default": "no live worker"}
    assert (refused["status"], refused["level"]) == (401, "info")


async def test_every_attempt_has_its_line(deployment: Deployment, lines: Lines) -> None:
    await deployment.behave({"faults": [{"status": 500}]})
    async with deployment.worker():
        await deployment.ended(await deployment.say("hello"))
    retried, succeeded = lines.all("job")
    assert [retried[name] for name in ("state", "code", "attempt", "model_calls", "cost_usd")] == [
        "retried", "upstream_unavailable", 1, 1, "0.000000000",
    ]  # fmt: skip
    assert [succeeded[name] for name in ("state", "code", "attempt", "model_calls")] == ["succeeded", None, 2, 1]
    assert succeeded["waited_ms"] <= retried["total_ms"] <= succeeded["total_ms"]


async def test_a_job_that_was_never_started_has_its_line(
    deployment: Deployment, lines: Lines, eventually: Eventually
) -> None:
    job_id = await deployment.say("hello", request_id="r-9")
    await deployment.intake.cancel(TENANT, job_id)
    async with deployment.worker():
        line = await eventually(lambda: next(iter(lines.all("job")), None))
    assert [line[name] for name in ("job_id", "request_id", "state", "attempt")] == [job_id, "r-9", "cancelled", 0]


async def break_down(self: Support, turn: Turn, ctx: Context) -> Reply:
    raise ZeroDivisionError(f"cannot answer {turn.text!r}")


def of_canary() -> dict[str, Any]:
    return {
        "message": f"I love my {CANARY}.",
        "metadata": {CANARY: CANARY},
        "callback_url": f"https://example.com/{CANARY.replace(' ', '-')}",
    }


@pytest.mark.parametrize("status", [400, 500])
async def test_no_line_of_any_process_has_a_word_of_anybody(
    ingress: Running,
    deployment: Deployment,
    settings: Settings,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """In a message, in its reply, in metadata, in what a provider or an agent complains of; at DEBUG."""

    async def ended(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
        job = (await client.post(MESSAGES, json=of_canary() | body)).json()
        await deployment.ended(job["id"])
        answer: dict[str, Any] = (await client.get(f"/v1/jobs/{job['id']}")).json()
        return answer

    async with ingress.client() as client:
        client.headers["authorization"] = "Bearer sk-tenant-a"
        async with deployment.worker(degraded_reply="none"):
            fine = await ended(client, conversation_id="fine")
            assert CANARY in fine["reply"]
            again = await ended(client, conversation_id="fine")
            assert CANARY in again["reply"]
            await client.post(MESSAGES, json={"message": CANARY, "metadata": {CANARY: CANARY * 999}, CANARY: CANARY})
            await client.post(MESSAGES, content=f'{{"message": "{CANARY}"')
            await client.get(f"/v1/jobs/{CANARY}", params={"token": CANARY})
        with unkind_provider(CANARY, status) as url:
            async with deployment.worker(openai_base_url=url, degraded_reply="none"):
                assert (await ended(client))["state"] == "dead"
        monkeypatch.setattr(Support, "answer", break_down)
        async with deployment.worker(degraded_reply="none"):
            assert (await ended(client))["state"] == "dead"
    assert {line["state"] for line in lines.all("job")} >= {"succeeded", "retried", "dead"}
    assert "penguin" not in lines.text
    assert "xylophone" not in lines.text


async def test_what_a_leaving_worker_hands_back_is_said_and_counted_once(
    deployment: Deployment, lines: Lines, eventually: Eventually
) -> None:
    await deployment.behave({"output_tokens": 200, "tokens_per_s": 5})
    async with deployment.worker(drain_s=0.1):
        job_id = await deployment.say("hello")
        await eventually(lambda: deployment.deltas(job_id))
    await deployment.behave({})
    async with deployment.worker():
        await deployment.ended(job_id)
    released, succeeded = lines.all("job")
    assert (released["state"], released["model_calls"], released["attempt"]) == ("released", 1, 1)
    assert (succeeded["state"], succeeded["model_calls"], succeeded["attempt"]) == ("succeeded", 1, 1)
    assert released["output_tokens"] > 0
