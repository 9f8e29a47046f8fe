"""Limits and budgets hold here as on our own routes, and are told in OpenAI's words."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from shared import keys
from tests.ingress.harness import Served
from tests.openai.harness import KEY
from tests.turn.deployment import TENANT, Deployment

HELLO: Any = [{"role": "user", "content": "hello"}]


async def give(deployment: Deployment, document: dict[str, Any]) -> None:
    text = json.dumps(document)
    await deployment.books.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = $2", text, TENANT)


async def test_all_surfaces_share_the_windows(deployment: Deployment, client: AsyncOpenAI, server: Served) -> None:
    await give(deployment, {"rates": {"user_per_min": 2}})
    raw = await client.responses.with_raw_response.create(model="support", input="a", user="u", background=True)
    assert raw.headers["x-ratelimit-remaining"] == "1"
    async with server.client(KEY) as native:
        await native.post("/v1/agents/support/messages", json={"message": "b", "user_id": "u"})
    for call in (
        client.responses.create(model="support", input="c", user="u", background=True),
        client.chat.completions.create(model="support", messages=HELLO, user="u"),
    ):
        with pytest.raises(openai.RateLimitError) as error:
            await call
        assert (error.value.code, error.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        headers = error.value.response.headers
        assert 0 < int(headers["retry-after"]) <= 60
        assert headers["x-ratelimit-remaining"] == "0"
        assert "x-should-retry" not in headers, "the SDK may wait and try again"


async def test_a_spent_budget_is_no_quota_and_not_tried_again(
    deployment: Deployment, client: AsyncOpenAI, redis: Redis
) -> None:
    await give(deployment, {"budgets": {"conversation_usd": "1"}})
    await redis.hset(keys.spent("conv", TENANT, "c"), "usd", 1_000_000_000)
    with pytest.raises(openai.RateLimitError) as error:
        await client.responses.create(model="support", input="a", conversation="c", background=True)
    assert (error.value.code, error.value.type) == ("insufficient_quota", "insufficient_quota")
    assert error.value.response.headers["x-should-retry"] == "false"
    assert await redis.keys("arq:job:*") == []
