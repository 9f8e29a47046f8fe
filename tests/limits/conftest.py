"""An intake on a real server, and a clock for it that the test moves."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.limits.clock import Clock, edited
from tests.queue.harness import Bench


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with Bench.open(redis_url) as opened:
        yield opened


@pytest.fixture
async def clock(redis: Redis) -> AsyncIterator[Clock]:
    with edited():
        made = Clock(redis)
        await made.move(0)
        yield made
