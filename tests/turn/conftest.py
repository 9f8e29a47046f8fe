"""A whole deployment in one process: an intake, and workers started by the test, on real servers."""

from collections.abc import AsyncIterator

import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from tests.conftest import Database
from tests.turn.deployment import Deployment


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    """Short waits, one provider and no reply in a model's place: what fails is seen. Else as in production."""
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "degraded_reply": "none",
            "retry_base_s": 0.01,
            "drain_s": 1.0,
            "cache_ttl_s": 0,
            "worker_concurrency": 100,
        }
    )


@pytest.fixture
async def deployment(settings: Settings, database: Database, standin: Standin) -> AsyncIterator[Deployment]:
    """When the test is over its money is checked: whatever it did, the counters are what the ledger says."""
    async with Deployment.open(settings, database, standin) as opened:
        yield opened
        await opened.check_money()
