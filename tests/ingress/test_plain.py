"""The short way of a plain message, beside the application's: the same answer, job, line and numbers."""

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from ingress.app import MESSAGES as ROUTE
from shared import keys
from shared.config import Settings
from shared.telemetry import reports
from shared.telemetry.metrics import REGISTRY
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, settings_for
from tests.ingress.listening import Listening, request
from tests.ingress.test_answering import CHANGING

_MADE = re.compile(r'"et":\d+|"00-(?!abab)[0-9a-f]{32}-[0-9a-f]{16}-00"')
_CHANGING_TEXT = re.compile(CHANGING.pattern.decode())
REMAINING = re.compile(r"(?<=;r=)\d+|(?<=;t=)\d+|(?<=remaining: )\d+|(?<=reset: )\d+")


@pytest.fixture
def settings(redis_url: str, with_keys: Database) -> Settings:
    """Keys stay at hand, however slow the machine is."""
    return settings_for(redis_url, with_keys.app, key_cache_ttl_s=3_600)


@dataclass
class Left:
    """What a message leaves behind, without what differs from one to the next."""

    answer: str
    line: dict[str, Any]
    record: dict[str, str]
    payload: str
    numbers: dict[str, float]


NUMBERS = {
    "switchboard_http_requests_total": {"route": ROUTE.path, "method": "POST", "status": "202"},
    "switchboard_admissions_total": {"agent": "support", "outcome": "accepted"},
    "switchboard_http_request_duration_seconds_count": {"route": ROUTE.path, "method": "POST"},
    "switchboard_http_requests_in_progress": {},
}


def numbers() -> dict[str, float]:
    return {name: REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in NUMBERS.items()}


def same(text: str) -> str:
    return REMAINING.sub("", _CHANGING_TEXT.sub("", text))


async def left_by(
    server: Listening, asked: bytes, redis: Redis, capsys: pytest.CaptureFixture[str], eventually: Any
) -> Left:
    before, lines = numbers(), list[dict[str, Any]]()
    capsys.readouterr()
    answer = (await server.ask(asked)).decode()
    job = json.loads(answer.partition("\r\n\r\n")[2])

    def told() -> bool:
        lines.extend(map(json.loads, capsys.readouterr().out.splitlines()))
        return bool(lines)

    await eventually(told)
    (line,) = lines
    assert line["job_id"] == job["id"]
    assert line["duration_ms"] > 0
    record = {name.decode(): value.decode() for name, value in (await redis.hgetall(keys.job(job["id"]))).items()}
    payload = (await redis.get(keys.arq_job(job["id"]))).decode()
    await redis.delete(keys.conversation(job["agent"], job["conversation_id"]))
    change = {name: now - before[name] for name, now in numbers().items()}
    changing = {name: "" for name in ("job_id", "timestamp", "duration_ms", "trace_id", "request_id")}
    line = {**line, **changing, "conversation_id": same(line["conversation_id"])}
    record = {name: same(value) for name, value in record.items() if name not in TIMES}
    return Left(same(answer), line, record, _MADE.sub("", same(payload)), change)


TIMES = {"created_us", "first_ms", "due_ms"}
FULL = {
    "message": "Grüße, 世界 🙂 %s {}",
    "user_id": "u %d <b>",
    "ttl_s": 30,
    "domain": "d",
    "feature": "f",
    "policy": "merge",
}
CASES = {
    "the least": request(),
    "with all it may say": request(body=json.dumps(FULL, ensure_ascii=False)),
    "a conversation of its own": request(body='{"message": "a", "conversation_id": "ünïcode % {0}", "user_id": "u"}'),
    "its own id": request("x-request-id: r-1"),
    "an id that is none": request("x-request-id: r 1"),
    "a trace of its caller": request("traceparent: 00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"),
}
# `request` counts characters; bodies are UTF-8
CASES = {
    name: re.sub(rb"(?<=content-length: )\d+", b"%d" % len(asked.partition(b"\r\n\r\n")[2]), asked)
    for name, asked in CASES.items()
}


@pytest.mark.parametrize("case", CASES)
async def test_a_plain_message_leaves_the_same_on_both_ways(
    short: Listening,
    long: Listening,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    eventually: Any,
    case: str,
) -> None:
    quick = await left_by(short, CASES[case], redis, capsys, eventually)
    assert short.through_the_app == long.through_the_app == []
    usual = await left_by(long, CASES[case], redis, capsys, eventually)
    assert long.through_the_app == [MESSAGES]
    assert quick == usual
    assert list(quick.line) == list(usual.line)
    assert quick.answer.startswith("HTTP/1.1 202 Accepted\r\n")
    assert "ratelimit-policy: " in quick.answer
    assert quick.numbers == {**dict.fromkeys(NUMBERS, 1.0), "switchboard_http_requests_in_progress": 0.0}


SPACED = request(body='{"message": "a"} ')  # without its end it is a body, too


@pytest.mark.parametrize(
    ("status", "pieces"),
    [
        (404, [request(path="/v1/agents/nobody/messages")]),
        (404, [request(path=f"{MESSAGES}/")]),
        (405, [request().replace(b"POST", b"GET", 1)]),
        (401, [request().replace(b"sk-tenant-a", b"sk-tenant-x", 1)]),
        (202, [request().replace(b"Bearer", b"bearer", 1)]),
        (202, [request("idempotency-key: k")]),
        (202, [request("x-stainless-retry-count: 0")]),
        (202, [request(body='{"message": "a\\u0062"}')]),
        (202, [request(body='{"message": "a", "metadata": {"a": 1}}')]),
        (422, [request(body='{"message": ""}')]),
        (202, [SPACED[:-1], SPACED[-1:]]),
        (413, [request(body=json.dumps({"message": "a" * 1_000_000}))]),
    ],
    ids=[
        "nobody", "another path", "another method", "another key", "another spelling", "an idempotency key", "a retry",
        "escapes", "metadata", "a fault", "in two pieces", "too large",
    ],
)  # fmt: skip
async def test_what_is_not_plain_is_the_applications(short: Listening, status: int, pieces: list[bytes]) -> None:
    answer = await short.ask(*pieces)
    assert int(answer[9:12]) == status
    assert len(short.through_the_app) == 1


async def test_a_message_whose_trace_is_recorded_is_the_applications(
    short: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "sample", 1.0)
    assert (await short.ask(request())).startswith(b"HTTP/1.1 202 ")
    assert short.through_the_app == [MESSAGES]


@pytest.mark.parametrize("queue", ["default", "own"])
def test_the_keys_that_are_made_at_once_are_those_made_one_by_one(queue: str) -> None:
    assert keys.of_message(queue, "t", "c", "j", "d") == [
        keys.queue(queue),
        keys.job("j"),
        keys.arq_job("j"),
        keys.conversation("t", "c"),
        keys.owner("t", "c"),
        keys.idempotency("t", "d"),
    ]
