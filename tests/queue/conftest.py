"""A queue per test, on the run's Valkey."""

from collections.abc import AsyncIterator

import pytest

from tests.queue.harness import Bench


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with Bench.open(redis_url) as opened:
        yield opened
