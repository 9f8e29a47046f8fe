"""The console, with keys of two tenants and of an operator."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import httpx
import pytest

from ops.console.app import create_console
from shared.config import Settings
from tests.conftest import Database
from tests.keys import give_key


@pytest.fixture
def settings(redis_url: str, database: Database) -> Settings:
    return Settings.read({"redis_url": redis_url, "database_url": database.app, "ops_database_url": database.ops})


@pytest.fixture
async def doors(settings: Settings, database: Database) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Clients by who they are: of acme, of other, an operator."""
    owner = await asyncpg.connect(database.owner)
    for name, tenant, scope in (("acme", "acme", "admin"), ("other", "other", "admin"), ("ops", "other", "operator")):
        await give_key(owner, tenant, f"sk-key-of-{name}", [scope])
    await owner.close()
    app = create_console(settings)
    async with AsyncExitStack() as closing:
        await closing.enter_async_context(app.router.lifespan_context(app))
        made = {}
        for name in ("acme", "other", "ops"):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            headers = {"authorization": f"Bearer sk-key-of-{name}"}
            client = httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers)
            made[name] = await closing.enter_async_context(client)
        yield made
