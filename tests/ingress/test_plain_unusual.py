"""What may come between a plain message and its answer on the short way: refusals, outages, callers who leave."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.config import Settings
from shared.errors import Unavailable
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, Running, settings_for
from tests.ingress.listening import LENGTH, Listening, request


@pytest.fixture
def settings(redis_url: str, with_keys: Database) -> Settings:
    """Keys stay at hand, however slow the machine is."""
    return settings_for(redis_url, with_keys.app, key_cache_ttl_s=3_600)


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
