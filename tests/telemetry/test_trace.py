"""One message is one trace in Sentry, from the request over the queue to the model, and holds nobody's words.

Real processes, and a stand-in for Sentry that takes what they send.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import Settings
from tests.telemetry.processes import Fleet, fleet
from tests.telemetry.sentry import Sentry, sentry
from tests.turn.deployment import Deployment

CANARY = "xylophone penguin"
MESSAGES = "/v1/agents/support/messages"
Span = dict[str, Any]


@pytest.fixture
def server() -> Iterator[Sentry]:
    with sentry() as started:
        yield started


def settings_with(settings: Settings, **overrides: Any) -> Settings:
    """Also what is set counts as set, so that child processes get it."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return settings.model_copy(update=overrides).model_construct(
        _fields_set={*given, *overrides}, **{**given, **overrides}
    )


def say(running: Fleet, **headers: str) -> dict[str, Any]:
    body = {"message": f"I love my {CANARY}.", "metadata": {CANARY: CANARY}, "conversation_id": "c-1"}
    accepted = running.ask("POST", MESSAGES, json=body, headers=headers)
    assert accepted.status_code == 202, accepted.text
    ended: dict[str, Any] = running.ask("GET", accepted.headers["location"], headers={"prefer": "wait=20"}).json()
    return ended


def by_op(transactions: list[Span]) -> dict[str, Span]:
    """Every span of every transaction, and the transactions themselves, by what they do."""
    found: dict[str, Span] = {}
    for transaction in transactions:
        root = {**transaction, **transaction["contexts"]["trace"]}
        for span in (root, *transaction["spans"]):
            found[f"{span['op']} {span.get('description') or transaction['transaction']}"] = span
    return found


OURS = "01990000-0000-7000-8000-00000000c001"
"""A conversation's id of our own making, which lines show as it is."""


async def test_a_message_is_one_trace_from_the_request_to_the_model(
    deployment: Deployment, settings: Settings, server: Sentry, tmp_path: Path
) -> None:
    traced = settings_with(settings, sentry_dsn=server.dsn, trace_sample=1.0)

    def run() -> dict[str, Any]:
        with fleet(traced, tmp_path) as running:
            return say(running, traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")

    job = await asyncio.to_thread(run)
    assert job["state"] == "succeeded"
    assert CANARY in job["reply"]
    spans = by_op(server.items("transaction"))
    request, turn_root, wait, turn, load, call, commit = (
        spans[name]
        for name in (
            "http.server POST /v1/agents/{agent_id}/messages",
            "queue.process job support",
            "queue.wait default",
            "turn support",
            "db.query turn_context_memory",
            "gen_ai.chat chat gpt-5.4-mini",
            "db.query commit_turn",
        )
    )
    assert {span["trace_id"] for span in spans.values()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    parents = [span["parent_span_id"] for span in (request, turn_root, wait, turn, load, call, commit)]
    inner = turn["span_id"]
    assert parents == [
        "00f067aa0ba902b7", request["span_id"], turn_root["span_id"], turn_root["span_id"], inner, inner, inner,
    ]  # fmt: skip
    assert turn_root["start_timestamp"] == wait["start_timestamp"]
    assert wait["timestamp"] <= turn["start_timestamp"] <= call["start_timestamp"] <= call["timestamp"]
    assert call["timestamp"] <= commit["timestamp"] <= turn_root["timestamp"]
    assert call["data"]["gen_ai.usage.input_tokens"] == job["usage"]["input_tokens"]
    assert turn_root["data"]["job_id"] == job["id"]
    assert b"penguin" not in server.sent
    assert "penguin" not in "".join((tmp_path / f"{name}.log").read_text() for name in ("ingress", "worker"))


async def test_an_error_in_a_turn_carries_its_ids_and_its_trace_and_no_words(
    deployment: Deployment, settings: Settings, server: Sentry, tmp_path: Path
) -> None:
    """The function that ends turns is broken for this run: a fault of ours."""
    broken = settings_with(settings, sentry_dsn=server.dsn, trace_sample=1.0, max_attempts=1)
    await deployment.books.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'cannot store %', NEW.body; END $$"
    )
    await deployment.books.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    def run() -> dict[str, Any]:
        with fleet(broken, tmp_path) as running:
            body = {"message": CANARY, "conversation_id": OURS}
            accepted = running.ask("POST", MESSAGES, json=body, headers={"x-request-id": "r-1"})
            path, job = accepted.headers["location"], accepted.json()
            running.ask("GET", path, headers={"prefer": "wait=2"})
            return dict(job)

    job = await asyncio.to_thread(run)
    error = next(event for event in server.items("event") if event["tags"].get("event") == "turn.broke")
    wanted = {"job_id": job["id"], "conversation_id": OURS, "tenant": "acme", "agent": "support", "request_id": "r-1"}
    assert wanted.items() <= error["tags"].items()
    assert error["contexts"]["trace"]["trace_id"] == error["tags"]["trace_id"]
    assert error["exception"]["values"][-1]["type"] == "RaiseError"
    assert b"penguin" not in server.sent
    line = next(json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines() if "turn.broke" in line)
    assert line["job_id"] == job["id"]
    assert "penguin" not in (tmp_path / "worker.log").read_text()


async def test_without_a_share_errors_are_reported_and_no_trace_is(
    deployment: Deployment, settings: Settings, server: Sentry, tmp_path: Path
) -> None:
    untraced = settings_with(settings, sentry_dsn=server.dsn)

    def run() -> dict[str, Any]:
        with fleet(untraced, tmp_path) as running:
            return say(running)

    assert (await asyncio.to_thread(run))["state"] == "succeeded"
    assert server.items("transaction") == []
