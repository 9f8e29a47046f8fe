"""Accepting messages: what 202 says, what is refused, and that a refusal leaves nothing behind."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.config import Settings
from shared.wire import decode_turn
from tests.conftest import PATIENCE_S
from tests.ingress.harness import MESSAGES, Running, Served, Worker, accepted, settings_for, started


async def test_a_message_is_accepted_with_everything_needed_to_follow_it(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    response = await client.post(MESSAGES, json={"message": "hello", "user_id": "u1", "metadata": {"order": 7}})
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert response.headers["retry-after"] == "1"
    assert job["events_url"].startswith(f"/v1/jobs/{job['id']}/events?token=")
    assert (job["state"], job["agent"], job["user_id"], job["position"]) == ("queued", "support", "u1", 0)
    assert job["metadata"] == {"order": 7}
    assert decode_turn(await redis.get(keys.arq_job(job["id"]))).message == "hello"


async def test_the_accepted_job_is_the_job_that_is_read_back(client: httpx.AsyncClient) -> None:
    job = await accepted(client, user_id="u1", metadata={"a": None, "b": True, "c": 1.5})
    job.pop("events_url")
    assert (await client.get(f"/v1/jobs/{job['id']}")).json() == job


async def test_everything_in_the_body_reaches_the_worker(client: httpx.AsyncClient, redis: Redis) -> None:
    body = {
        "message": "ćao\n👋",
        "conversation_id": "c 1",
        "user_id": "u1",
        "callback_url": "https://example.com/hook?x=1",
        "metadata": {"k": "v"},
        "ttl_s": 60,
        "domain": "shop",
        "feature": "faq",
    }
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    job = (await client.post(MESSAGES, json=body, headers=trace)).json()
    turn = decode_turn(await redis.get(keys.arq_job(job["id"])))
    for name in ("message", "conversation_id", "user_id", "callback_url", "metadata", "domain", "feature"):
        assert getattr(turn, name) == body[name]
    assert turn.trace == {"traceparent": trace["traceparent"][:-2] + "00"}  # what is recorded is our own decision
    assert turn.tenant == "a"
    expires_ms = await redis.zscore(f"{keys.queue('default')}:expiry", job["id"])
    accepted_us = int(await redis.hget(keys.job(job["id"]), "created_us"))
    assert expires_ms == accepted_us // 1_000 + 60_000


async def test_an_accepted_message_costs_exactly_one_round_trip(running: Running, redis: Redis) -> None:
    async with running.client() as client:
        await accepted(client)  # key, script and connection are known from here on
        before = await _calls(redis)
        flushes = _count_round_trips(running)
        await accepted(client)
        after = await _calls(redis)
    assert flushes == [1]
    assert after["evalsha"] - before["evalsha"] == 1


async def test_messages_of_one_conversation_queue_behind_each_other(client: httpx.AsyncClient) -> None:
    first = await accepted(client, conversation_id="c")
    second = await accepted(client, conversation_id="c")
    assert (first["position"], second["position"]) == (0, 1)


async def test_a_message_without_conversation_gets_its_own(client: httpx.AsyncClient) -> None:
    first, second = await accepted(client), await accepted(client)
    assert first["conversation_id"] != second["conversation_id"]
    assert second["position"] == 0


async def test_the_body_is_read_as_json_whatever_its_content_type(client: httpx.AsyncClient) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d` sends
    response = await client.post(MESSAGES, content=b'{"message": "hello"}', headers=form)
    assert response.status_code == 202


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"hello", 400, "invalid_request"),
        (b'{"message": "a"', 400, "invalid_request"),
        (b'{"message": "a", "message": "b"}', 400, "invalid_request"),
        (b'{"message": NaN}', 400, "invalid_request"),
        (b'\xef\xbb\xbf{"message": "a"}', 400, "invalid_request"),
        (b'{"message": "\xff"}', 400, "invalid_request"),
        (b"[" * 100_000, 400, "invalid_request"),
        (b'{"ttl_s": ' + b"9" * 5000 + b"}", 400, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"message": "' + b"x" * 32_001 + b'"}', 422, "invalid_request"),
        (b'{"message": "' + b"x" * 262_144 + b'"}', 413, "too_large"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
async def test_a_body_that_cannot_be_used_is_refused_and_nothing_is_enqueued(
    client: httpx.AsyncClient, redis: Redis, content: bytes, status: int, code: str
) -> None:
    response = await client.post(MESSAGES, content=content)
    problem = response.json()
    assert (response.status_code, problem["status"], problem["type"]) == (status, status, f"/problems/{code}")
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert await redis.keys("arq:*") == []
    assert await redis.keys("sb:job:*") == []


async def test_an_unknown_agent_is_404(client: httpx.AsyncClient, redis: Redis) -> None:
    response = await client.post("/v1/agents/nobody/messages", json={"message": "hello"})
    assert (response.status_code, response.json()["type"]) == (404, "/problems/not_found")
    assert await redis.keys("arq:*") == []


async def test_a_conversation_belongs_to_one_user(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    await accepted(client, conversation_id="c", user_id="u1")
    response = await client.post(MESSAGES, json={"message": "x", "conversation_id": "c", "user_id": "u2"})
    assert (response.status_code, response.json()["type"]) == (422, "/problems/conversation_owner")
    assert (await accepted(client, conversation_id="c"))["user_id"] == "u1"
    assert (await accepted(stranger, conversation_id="c", user_id="u2"))["user_id"] == "u2"


async def test_a_full_queue_is_503_until_there_is_room(settings: Settings, worker: Worker) -> None:
    narrow = settings_for(settings.redis_url, settings.database_url, max_queue_depth=2)
    async with started(narrow) as running, running.client() as client:
        for _ in range(2):
            await accepted(client)
        refused = await client.post(MESSAGES, json={"message": "one too many"})
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/queue_full")
        assert int(refused.headers["retry-after"]) > 0
        await worker.claim(1)
        await accepted(client)


async def test_a_large_body_in_chunks_is_refused_before_its_end(server: Served) -> None:
    url = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = [f"POST {MESSAGES} HTTP/1.1", "host: x", "authorization: Bearer sk-tenant-a", "transfer-encoding: chunked"]
    writer.write(
        "\r\n".join([*head, "", ""]).encode() + b"40001\r\n" + b" " * 0x40001 + b"\r\n"
    )  # one byte too many, and no end
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")  # the phrase differs between Pythons
    writer.close()
    await writer.wait_closed()


async def test_a_chunked_body_just_over_the_limit_gets_its_problem(server: Served) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * 65_536

    async with server.client() as client:
        response = await client.post(MESSAGES, content=chunks())
    assert (response.status_code, response.json()["type"]) == (413, "/problems/too_large")


async def test_many_messages_at_once_share_round_trips(running: Running) -> None:
    async with running.client() as client:
        await accepted(client)
        flushes = _count_round_trips(running)
        jobs = await asyncio.gather(*(accepted(client, str(n)) for n in range(50)))
    assert len({job["id"] for job in jobs}) == 50
    assert sum(flushes) == 50
    assert len(flushes) < 50


def _count_round_trips(running: Running) -> list[int]:
    """How many scripts each round trip carries from now on; samples of memory and of the time a PING takes are none."""
    link, flushes = running.ingress.commands._link, []
    assert link is not None
    send = link.send

    def counted(packed: list[bytes], replies: list[Any]) -> None:
        if size := sum(1 for command in packed if b"EVALSHA" in command):
            flushes.append(size)
        send(packed, replies)

    link.send = counted  # type: ignore[method-assign, assignment]
    return flushes


async def _calls(redis: Redis) -> dict[str, int]:
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}


async def test_json_of_a_problem_names_every_fault(client: httpx.AsyncClient) -> None:
    body = {
        "message": " ",
        "user_id": 7,
        "conversation_id": "",
        "ttl_s": 0,
        "metadata": {"a/b": [], "c": "x" * 513},
        "callback_url": "ftp://example.com",
        "colour": "red",
    }
    response = await client.post(MESSAGES, content=json.dumps(body))
    assert response.status_code == 422
    assert {fault["field"] for fault in response.json()["errors"]} == {
        "message",
        "user_id",
        "conversation_id",
        "ttl_s",
        "metadata/a~1b",
        "metadata/c",
        "callback_url",
        "colour",
    }
