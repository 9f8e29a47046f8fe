"""The same message delivered twice is one job; two honest identical messages stay two."""

import asyncio

import httpx
import pytest
from redis.asyncio import Redis

from shared import keys
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, Running, Worker, accepted, commit_job

KEY = {"idempotency-key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}


async def test_a_repeat_answers_200_with_the_same_job(client: httpx.AsyncClient, redis: Redis) -> None:
    first = await client.post(MESSAGES, json={"message": "hello", "user_id": "u"}, headers=KEY)
    again = await client.post(MESSAGES, content=b'{"user_id":"u",  "message":"hello"}', headers=KEY)
    assert (first.status_code, again.status_code) == (202, 200)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == first.json()
    assert await redis.zcard(keys.queue("default")) == 1


async def test_a_repeat_shows_the_job_as_it_is_by_now(client: httpx.AsyncClient, worker: Worker) -> None:
    first = await client.post(MESSAGES, json={"message": "hello"}, headers=KEY)
    await worker.claim()
    await worker.end(first.json()["id"], reply="done")
    again = (await client.post(MESSAGES, json={"message": "hello"}, headers=KEY)).json()
    assert (again["id"], again["state"], again["reply"]) == (first.json()["id"], "succeeded", "done")


@pytest.mark.parametrize(
    "change", [{"json": {"message": "other"}}, {"url": "/v1/agents/sales/messages"}], ids=["body", "agent"]
)
async def test_a_key_used_for_something_else_is_422(
    client: httpx.AsyncClient, redis: Redis, change: dict[str, object]
) -> None:
    request = {"url": MESSAGES, "json": {"message": "hello"}, "headers": KEY}
    await client.post(**request)  # type: ignore[arg-type]
    response = await client.post(**{**request, **change})  # type: ignore[arg-type]
    assert (response.status_code, response.json()["type"]) == (422, "/problems/idempotency_mismatch")
    assert await redis.zcard(keys.queue("default")) == 1


async def test_a_key_means_the_same_quoted_and_bare(client: httpx.AsyncClient) -> None:
    quoted = await client.post(MESSAGES, json={"message": "a"}, headers={"idempotency-key": '"k\\"1"'})
    bare = await client.post(MESSAGES, json={"message": "a"}, headers={"idempotency-key": 'k"1'})
    assert bare.json()["id"] == quoted.json()["id"]


@pytest.mark.parametrize("key", ["", '""', '"open', "a b", "é".encode(), "x" * 256])
async def test_an_unusable_key_is_400(client: httpx.AsyncClient, redis: Redis, key: str | bytes) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    response = await client.post(MESSAGES, json={"message": "a"}, headers=[(b"idempotency-key", raw)])
    assert response.status_code == 400
    assert await redis.keys("arq:*") == []


async def test_two_keys_in_one_request_are_400(client: httpx.AsyncClient) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    assert (await client.post(MESSAGES, json={"message": "a"}, headers=headers)).status_code == 400


async def test_keys_of_two_tenants_do_not_meet(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    for caller in (client, stranger):
        assert (await caller.post(MESSAGES, json={"message": "a"}, headers=KEY)).status_code == 202


async def test_of_many_at_once_one_is_accepted(client: httpx.AsyncClient) -> None:
    responses = await asyncio.gather(*(client.post(MESSAGES, json={"message": "a"}, headers=KEY) for _ in range(20)))
    assert sorted(response.status_code for response in responses) == [200] * 19 + [202]
    assert len({response.json()["id"] for response in responses}) == 1


async def test_an_sdks_own_retry_finds_the_job_of_its_first_try(client: httpx.AsyncClient) -> None:
    tries = [
        await client.post(MESSAGES, json={"message": "a"}, headers={"x-stainless-retry-count": str(n)})
        for n in (0, 1, 2)
    ]
    assert [response.status_code for response in tries] == [202, 200, 200]
    assert len({response.json()["id"] for response in tries}) == 1


async def test_two_honest_identical_messages_of_an_sdk_are_two_jobs(client: httpx.AsyncClient) -> None:
    first, second = [
        await client.post(MESSAGES, json={"message": "a"}, headers={"x-stainless-retry-count": "0"}) for _ in range(2)
    ]
    assert first.json()["id"] != second.json()["id"]


async def test_an_sdks_retry_with_another_key_of_the_tenant_is_its_own_job(running: Running) -> None:
    async with running.client() as one, running.client("sk-admin-of-a") as other:
        first = await one.post(MESSAGES, json={"message": "a"}, headers={"x-stainless-retry-count": "0"})
        second = await other.post(MESSAGES, json={"message": "a"}, headers={"x-stainless-retry-count": "1"})
    assert first.json()["id"] != second.json()["id"]


async def test_without_a_key_every_message_is_a_job(client: httpx.AsyncClient) -> None:
    assert (await accepted(client, "same"))["id"] != (await accepted(client, "same"))["id"]


async def test_a_repeat_after_redis_forgot_the_job_is_answered_from_postgres(
    client: httpx.AsyncClient, redis: Redis, with_keys: Database
) -> None:
    first = (await client.post(MESSAGES, json={"message": "hello"}, headers=KEY)).json()
    await commit_job(with_keys, "a", first["id"], reply="from the archive")
    await redis.delete(keys.job(first["id"]))
    again = await client.post(MESSAGES, json={"message": "hello"}, headers=KEY)
    assert (again.status_code, again.json()["reply"]) == (200, "from the archive")
    assert again.headers["idempotent-replayed"] == "true"
