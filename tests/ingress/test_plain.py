"""The short way of a plain message, beside the application's: the same answer, job, line and numbers."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from redis.asyncio import Redis
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ingress import request_log
from ingress.app import MESSAGES as ROUTE
from ingress.connection import STATE, Connection
from ingress.plain import PlainMessages
from shared import keys
from shared.config import Settings
from shared.errors import Unavailable
from shared.telemetry import reports
from shared.telemetry.metrics import REGISTRY
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, Running, settings_for
from tests.ingress.test_answering import CHANGING, request

_MADE = re.compile(r'"et":\d+|"00-(?!abab)[0-9a-f]{32}-[0-9a-f]{16}-00"')
LENGTH = re.compile(rb"content-length: (\d+)")
_CHANGING_TEXT = re.compile(CHANGING.pattern.decode())
REMAINING = re.compile(r"(?<=;r=)\d+|(?<=;t=)\d+|(?<=remaining: )\d+|(?<=reset: )\d+")


@dataclass
class Listening:
    """A running application behind connections of one kind, in the test's own loop."""

    running: Running
    port: int
    connections: set[Any]
    through_the_app: list[str] = field(default_factory=list)
    """Paths of requests that came to the application."""

    async def ask(self, first: bytes, rest: bytes = b"") -> bytes:
        """What comes back to one request, of which `rest` is sent when `first` has been read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(first)
        while rest and not any(made.cycle is not None for made in self.connections):
            await asyncio.sleep(0)
        writer.write(rest)
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length
        answer = head + await reader.readexactly(int(length[1]))
        writer.close()
        return answer


@asynccontextmanager
async def listening(
    running: Running, kind: type[HttpToolsProtocol], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Listening]:
    config = uvicorn.Config(running.app, http=kind, lifespan="off", access_log=False, log_config=None)
    config.load()
    state, shared = ServerState(), {STATE: PlainMessages(running.ingress, ROUTE)}
    state.default_headers = [(b"date", b"Sat, 21 Nov 2026 22:00:00 GMT")]

    def connect() -> asyncio.Protocol:
        return kind(config=config, server_state=state, app_state=shared)

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    made = Listening(running, server.sockets[0].getsockname()[1], state.connections)
    usual = request_log.RequestLog.__call__

    async def seen(log: Any, scope: Any, receive: Any, send: Any) -> None:
        made.through_the_app.append(scope["path"])
        await usual(log, scope, receive, send)

    monkeypatch.setattr(request_log.RequestLog, "__call__", seen)
    async with server:
        yield made
        for task in list(state.tasks):
            await task


@pytest.fixture
def settings(redis_url: str, with_keys: Database) -> Settings:
    """Keys stay at hand, however slow the machine is."""
    return settings_for(redis_url, with_keys.app, key_cache_ttl_s=3_600)


@pytest.fixture
async def short(running: Running, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listening]:
    """As `switchboard ingress` serves, once it knows the key and Redis the script."""
    async with listening(running, Connection, monkeypatch) as made:
        await made.ask(request())
        made.through_the_app.clear()
        yield made


@pytest.fixture
async def long(running: Running, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listening]:
    async with listening(running, HttpToolsProtocol, monkeypatch) as made:
        yield made


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


@pytest.fixture
def asked(running: Running, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Job ids that Redis was asked about, by either way."""
    ids: list[str] = []
    usual = running.ingress.intake._question

    def question(payload: Any, *given: Any) -> Any:
        ids.append(payload.job_id)
        return usual(payload, *given)

    monkeypatch.setattr(running.ingress.intake, "_question", question)
    return ids


async def test_a_refusal_costs_one_question_and_is_answered_by_the_application(
    short: Listening, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = request(body='{"message": "a", "conversation_id": "c", "user_id": "me"}')
    others = request("x-request-id: r-1", body='{"message": "a", "conversation_id": "c", "user_id": "other"}')
    assert (await short.ask(mine)).startswith(b"HTTP/1.1 202 ")
    capsys.readouterr()
    refused = await short.ask(others)
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["type"] == "/problems/conversation_owner"
    assert b"ratelimit-policy: " in refused
    assert len(asked) == 2
    assert short.through_the_app == [MESSAGES]
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["outcome"], line["status"], line["request_id"], line["job_id"]) == ("owner", 422, "r-1", asked[1])


async def test_a_redis_that_forgot_its_scripts_is_asked_again_for_the_same_job(
    short: Listening, asked: list[str], redis: Redis
) -> None:
    await redis.script_flush()
    assert (await short.ask(request())).startswith(b"HTTP/1.1 202 ")
    assert len(asked) == 2
    assert len(set(asked)) == 1
    assert await redis.zcard(keys.queue("default")) == 2  # the fixture's, and this one


async def test_a_message_whose_acceptance_was_not_heard_is_accepted_once(
    short: Listening, asked: list[str], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short.running.ingress.intake, "asked", _unheard(short.running.ingress.intake.asked))
    answer = await short.ask(request())
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert len(asked) == 2
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["id"] == asked[0] == asked[1]
    assert await redis.zcard(keys.queue("default")) == 2  # the fixture's, and this one


def _unheard(ask: Callable[..., "asyncio.Future[Any]"]) -> Callable[..., "asyncio.Future[Any]"]:
    """Redis accepts, and its answer is lost."""

    def lost(*given: Any, **named: Any) -> "asyncio.Future[Any]":
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ask(*given, **named).add_done_callback(lambda _reply: heard.set_exception(Unavailable("lost")))
        return heard

    return lost


@pytest.fixture
def gate(short: Listening, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Answers of Redis wait until it is set; `asked` of it: one is waiting."""
    opened, ask = asyncio.Event(), short.running.ingress.intake.asked

    def held(*given: Any, **named: Any) -> "asyncio.Future[Any]":
        async def later() -> Any:
            reply = await ask(*given, **named)
            await opened.wait()
            return reply

        return asyncio.ensure_future(later())

    monkeypatch.setattr(short.running.ingress.intake, "asked", held)
    return opened


async def test_a_server_that_stops_answers_what_is_under_way_and_closes(
    short: Listening, gate: asyncio.Event, eventually: Any
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", short.port)
    writer.write(request("x-request-id: r-1"))
    await eventually(lambda: any(each.cycle is not None for each in short.connections))
    for connection in short.connections:
        connection.shutdown()
    gate.set()
    answer = await reader.read()  # up to the end
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert b"connection: close\r\n" in answer
    assert b"x-request-id: r-1\r\n" in answer
    writer.close()


async def test_a_caller_who_leaves_has_sent_its_message(
    short: Listening, gate: asyncio.Event, redis: Redis, capsys: pytest.CaptureFixture[str], eventually: Any
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", short.port)
    writer.write(request())
    await eventually(lambda: any(each.cycle is not None for each in short.connections))
    writer.transport.abort()
    await eventually(lambda: not short.connections)
    capsys.readouterr()
    gate.set()
    out: list[str] = []

    def told() -> bool:
        out.extend(capsys.readouterr().out.splitlines())
        return bool(out)

    await eventually(told)
    assert json.loads(out[0])["status"] == 202
    assert await redis.zcard(keys.queue("default")) == 2  # the fixture's, and this one


async def test_a_second_request_waits_for_the_first_ones_answer(
    short: Listening, gate: asyncio.Event, eventually: Any
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", short.port)
    writer.write(request("x-request-id: r-1"))
    await eventually(lambda: any(each.cycle is not None for each in short.connections))
    writer.write(request("x-request-id: r-2"))
    await eventually(lambda: any(each.pipeline for each in short.connections))
    gate.set()
    found = []
    for _ in range(2):
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length
        await reader.readexactly(int(length[1]))
        found += re.findall(rb"x-request-id: (\S+)", head)
    assert found == [b"r-1", b"r-2"]
    writer.close()


async def test_a_fault_of_ours_after_acceptance_is_a_500_with_the_requests_id(
    short: Listening, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(short.running.ingress.tokens.__class__, "sign", broken)
    answer = await short.ask(request("x-request-id: r-1"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"x-request-id: r-1\r\n" in answer
    assert len(asked) == 1


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
