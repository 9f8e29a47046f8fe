"""Two tenants with keys of every kind, the console that operates them, and the books beneath it."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import httpx
import pytest

from agents import registry
from ops.console.app import create_console
from ops.stack.standin import Standin
from ops.tenants.books import TenantBooks
from shared.config import Settings
from shared.db import open_pool
from shared.redis import Commands, connect
from tests.conftest import Database
from tests.keys import give_key
from tests.tenants.crossing_rows import SEALING_KEY, settle
from tests.turn.deployment import Deployment

KEYS = {
    "sk-operator": ("house", ["operator"]),
    "sk-admin": ("acme", ["admin"]),
    "sk-chat-only": ("acme", ["chat"]),
    "sk-other-admin": ("other", ["admin"]),
    "sk-other-chat": ("other", ["chat"]),
}


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "secret": "a secret of tests, long enough",
            "credentials_key": SEALING_KEY,
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
async def with_keys(database: Database) -> None:
    owner = await asyncpg.connect(database.owner)
    for key, (tenant, scopes) in KEYS.items():
        await give_key(owner, tenant, key, scopes)
    await owner.close()


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


@pytest.fixture
async def operator(console: Clients) -> AsyncIterator[httpx.AsyncClient]:
    async with console("sk-operator") as client:
        yield client


@pytest.fixture
async def admin(console: Clients) -> AsyncIterator[httpx.AsyncClient]:
    """Of the tenant `acme`."""
    async with console("sk-admin") as client:
        yield client


@pytest.fixture
async def books(settings: Settings, database: Database, with_keys: None) -> AsyncIterator[TenantBooks]:
    """An operator's."""
    pool = await open_pool(
        database.ops, 4, environment="development", prepared_statements=settings.db_prepared_statements
    )
    commands = Commands(connect(settings.redis_url))
    yield TenantBooks(pool, pool, commands, registry.load())
    await commands.aclose()
    await pool.close()


@pytest.fixture
async def all_seeing(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.superuser)
    yield connection
    await connection.close()


@pytest.fixture
async def jobs(all_seeing: asyncpg.Connection) -> dict[str, str]:
    return await settle(all_seeing, all_seeing)
