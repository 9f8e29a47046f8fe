"""A request that the SDK repeats by itself is one job, two honest identical ones are two."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from redis.asyncio import Redis

from shared import keys
from tests.conftest import PATIENCE_S
from tests.ingress.harness import Served
from tests.openai.harness import KEY, Product, deaf_proxy

HELLO: Any = [{"role": "user", "content": "hello"}]


async def jobs(product: Product) -> int:
    count: int = await product.deployment.books.fetchval("SELECT count(*) FROM jobs")
    return count


async def test_a_repeat_by_the_sdk_finds_the_job_of_its_first_try(product: Product) -> None:
    calls = {
        "plain": lambda client: client.responses.create(model="support", input="plain"),
        "background": lambda client: client.responses.create(model="support", input="back", background=True),
        "chat": lambda client: client.chat.completions.create(model="support", messages=HELLO),
    }
    for number, (name, call) in enumerate(calls.items(), 1):
        async with (
            deaf_proxy(product.server.url) as url,
            AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=2) as client,
        ):
            answer = await call(client)
            if name == "background":
                while (await client.responses.retrieve(answer.id)).status != "completed":
                    await asyncio.sleep(0.02)
        assert await jobs(product) == number, name
    assert (await product.deployment.served())["calls"] == 3


async def test_the_sync_sdk_s_repeat_of_a_stream_is_the_whole_stream_of_one_job(product: Product) -> None:
    def read(url: str) -> list[Any]:
        with OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=1, _strict_response_validation=True) as client:
            return list(client.responses.create(model="support", input="hello", stream=True))

    async with deaf_proxy(product.server.url) as url:
        events = await asyncio.to_thread(read, url)
    assert [events[0].sequence_number, events[-1].type] == [0, "response.completed"]
    assert await jobs(product) == 1


async def test_two_honest_identical_requests_are_two_jobs(product: Product, client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="support", input="same")
    second = await client.responses.create(model="support", input="same")
    assert first.id != second.id
    assert await jobs(product) == 2


async def test_a_key_is_of_its_route(client: AsyncOpenAI, server: Served, redis: Redis) -> None:
    key = {"Idempotency-Key": "order-1"}
    await client.responses.create(model="support", input="hello", background=True, extra_headers=key)
    stream = await client.chat.completions.create(model="support", messages=HELLO, stream=True, extra_headers=key)
    assert "idempotent-replayed" not in stream.response.headers
    await stream.close()
    assert await redis.zcard(keys.queue("default")) == 2


async def test_an_idempotency_key_works_as_on_our_own_routes(client: AsyncOpenAI, server: Served) -> None:
    key = {"Idempotency-Key": '"order-1"'}
    first, again = [
        await client.responses.create(model="support", input="hello", background=True, extra_headers=key)
        for _ in range(2)
    ]
    assert again.id == first.id
    with pytest.raises(openai.UnprocessableEntityError) as error:
        await client.responses.create(model="support", input="other", background=True, extra_headers=key)
    assert error.value.code == "idempotency_mismatch"


async def test_a_background_request_costs_one_round_trip(client: AsyncOpenAI, server: Served, redis: Redis) -> None:
    await client.responses.create(model="support", input="warm", background=True)
    before = await redis.info("commandstats")
    await client.responses.create(model="support", input="hello", background=True)
    after = await redis.info("commandstats")

    def calls(stats: dict[str, Any], name: str) -> int:
        found: int = stats.get(f"cmdstat_{name}", {}).get("calls", 0)
        return found

    assert calls(after, "evalsha") - calls(before, "evalsha") == 1


async def test_a_client_that_leaves_a_plain_request_stops_nothing(product: Product, client: AsyncOpenAI) -> None:
    await product.deployment.behave({"held": True})
    with pytest.raises(openai.APITimeoutError):
        await client.responses.create(model="support", input="hello", timeout=2.0)
    await product.deployment.behave()
    async with asyncio.timeout(PATIENCE_S):
        while await jobs(product) == 0:
            await asyncio.sleep(0.02)
    assert await product.deployment.books.fetchval("SELECT state FROM jobs") == "succeeded"
