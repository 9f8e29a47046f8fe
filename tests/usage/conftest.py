"""The deployment of the turn's tests, the console on the same servers, and the ledger as each role sees it."""

from collections.abc import AsyncIterator

import pytest

from ops.stack.standin import Standin
from ops.usage.books import UsageBooks
from shared.config import Settings
from shared.db import Pool, open_pool
from tests.conftest import Database
from tests.dead.conftest import console, deployment, with_keys
from tests.usage.ledger import Ledger

__all__ = ["console", "deployment", "with_keys"]


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    """Short waits, and what fails is dead; everything else as in production."""
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "anthropic_api_key": "sk-test",
            "anthropic_base_url": standin.url,
            "degraded_reply": "none",
            "retry_base_s": 0.01,
            "drain_s": 1.0,
            "cache_ttl_s": 0,
        }
    )


@pytest.fixture
async def app(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.app, 2, environment="production")
    yield pool
    await pool.close()


@pytest.fixture
async def ops(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.ops, 2, environment="production")
    yield pool
    await pool.close()


@pytest.fixture
def ledger(app: Pool) -> Ledger:
    return Ledger(app)


@pytest.fixture
async def books(ops: Pool) -> UsageBooks:
    """An operator's: every tenant."""
    return await UsageBooks.over(ops)


@pytest.fixture
async def own_books(app: Pool) -> UsageBooks:
    """Those of the role that is bound to one tenant."""
    return await UsageBooks.over(app)
