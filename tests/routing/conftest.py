"""A whole deployment in one process, with both providers; the stand-in is both."""

from collections.abc import AsyncIterator

import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from tests.conftest import Database
from tests.turn.deployment import Deployment

OPENAI, ANTHROPIC = "gpt-5.4-mini", "claude-haiku-4-5"
"""What the support agent asks, in its order."""


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    """Short waits; everything else as in production."""
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "anthropic_api_key": "sk-test",
            "anthropic_base_url": standin.url,
            "retry_base_s": 0.01,
            "drain_s": 1.0,
            "cache_ttl_s": 0,
            "worker_concurrency": 100,
        }
    )


@pytest.fixture
async def deployment(settings: Settings, database: Database, standin: Standin) -> AsyncIterator[Deployment]:
    async with Deployment.open(settings, database, standin) as opened:
        yield opened


async def calls_of(deployment: Deployment, model: str) -> list[dict[str, object]]:
    """What the provider was asked, in the order it came."""
    served = (await deployment.served())["requests"]
    return sorted((each for each in served if each["model"] == model), key=lambda each: each["at_us"])
