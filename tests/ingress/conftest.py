"""The ingress on the run's Valkey and PostgreSQL, and clients of two tenants."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress.connection import Connection
from shared.config import Settings
from shared.redis import Commands
from tests.conftest import Database
from tests.ingress.harness import KEYS, Ageing, Running, Served, Worker, served, settings_for, started
from tests.ingress.listening import Listening, listening, request
from tests.keys import give_key


@pytest.fixture
async def with_keys(database: Database) -> Database:
    """A migrated database that knows `KEYS`."""
    owner = await asyncpg.connect(database.owner)
    for key, (tenant, scopes) in KEYS.items():
        await give_key(owner, tenant, key, scopes)
    await owner.close()
    return database


@pytest.fixture
def settings(redis_url: str, with_keys: Database) -> Settings:
    return settings_for(redis_url, with_keys.app)


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    async with started(settings) as application:
        yield application


@pytest.fixture
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """As tenant `a`."""
    async with running.client() as made:
        yield made


@pytest.fixture
async def stranger(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """As tenant `b`."""
    async with running.client("sk-tenant-b") as made:
        yield made


@pytest.fixture
async def anonymous(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client(None) as made:
        yield made


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    commands = Commands(Redis.from_url(redis_url))
    yield Worker(commands)
    await commands.aclose()


@pytest.fixture
def ageing(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Ageing:
    """Time stands still for what is known of keys and channels, until `await ageing.go_by(seconds)`."""
    made = Ageing(redis)
    monkeypatch.setattr("ingress.known.monotonic", made.monotonic)
    return made


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Served]:
    async with served(settings) as made:
        yield made


@pytest.fixture
async def short(running: Running, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listening]:
    """As `switchboard ingress` serves, once it knows the key and Redis the script."""
    async with listening(running, Connection, monkeypatch) as made:
        await made.ask(request())
        made.through_the_app.clear()
        yield made


@pytest.fixture
async def long(running: Running, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listening]:
    async with listening(running, HttpToolsProtocol, monkeypatch) as made:
        yield made
