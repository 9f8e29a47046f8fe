"""A queue with claimed jobs, and the counters they spend from, on a real server."""

from collections.abc import AsyncIterator

import pytest

from shared import keys
from tests.queue.harness import Bench


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    """Money is open."""
    async with Bench.open(redis_url) as opened:
        await opened.redis.hset(keys.MONEY, "epoch", "first")  # type: ignore[misc]  # redis-py types both worlds at once
        yield opened
