"""Memory on the test's own servers; when a test is over its money is checked."""

from collections.abc import AsyncIterator

import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from tests.conftest import Database
from tests.embeddings.harness import Memory, Process


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "global_day_usd": "none",
            "breaker_failures": 0,
            "embedding_deadline_ms": 20_000,  # a loaded machine is not what tests are about
        }
    )


@pytest.fixture
async def memory(settings: Settings, database: Database, standin: Standin) -> AsyncIterator[Memory]:
    async with Memory.open(settings, database, standin) as opened:
        await opened.tenant("acme")
        yield opened
        await opened.money_agrees()


@pytest.fixture
async def process(memory: Memory) -> AsyncIterator[Process]:
    async with memory.process() as opened:
        yield opened
