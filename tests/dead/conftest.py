"""The deployment of the turn's tests, an operator's desk, and the console on the same servers."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import httpx
import pytest

from agents import registry
from ops.console.app import create_console
from ops.dead.desk import Desk
from ops.stack.standin import Standin
from shared.config import Settings
from shared.db import open_pool
from tests.conftest import Database
from tests.keys import give_key
from tests.turn.deployment import TENANT, Deployment

KEYS = {
    "sk-operator": ("house", ["operator"]),
    "sk-admin": (TENANT, ["admin"]),
    "sk-other-admin": ("other", ["admin"]),
    "sk-chat-only": (TENANT, ["chat"]),
}


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
            "degraded_reply": "none",
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


@pytest.fixture
async def desk(deployment: Deployment, database: Database) -> AsyncIterator[Desk]:
    """An operator's: every tenant."""
    pool = await open_pool(database.ops, 6, environment="development")
    yield await Desk.over(pool, deployment.commands, deployment.settings, registry.load())
    await pool.close()


@pytest.fixture
async def with_keys(database: Database, deployment: Deployment) -> None:
    connection = await asyncpg.connect(database.owner)
    for key, (tenant, scopes) in KEYS.items():
        await give_key(connection, tenant, key, scopes)
    await connection.close()


Clients = Callable[[str | None], httpx.AsyncClient]


@pytest.fixture
async def console(settings: Settings, with_keys: None) -> AsyncIterator[Clients]:
    """`console(key)` is a client of the console with that key."""
    app = create_console(settings)

    def client(key: str | None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers)

    async with app.router.lifespan_context(app):
        yield client
