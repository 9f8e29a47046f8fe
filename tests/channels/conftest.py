"""An ingress with a channel of every kind, and a provider that calls it."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from agents import registry
from ops.channels.books import ChannelBooks, NewChannel
from shared import keys
from shared.config import Settings
from shared.db import open_pool
from shared.redis import Commands, connect
from shared.sealing import Sealer
from shared.wire import TurnPayload, decode_turn
from tests.channels.providers import PROVIDERS, Provider, Request
from tests.conftest import Database
from tests.ingress.conftest import ageing, running, with_keys, worker  # noqa: F401 - fixtures of the ingress's own tests
from tests.ingress.harness import Running, settings_for, started

SEALING_KEY = b64encode(b"k" * 32).decode()


@pytest.fixture
def settings(redis_url: str, with_keys: Database) -> Settings:  # noqa: F811 - the fixture
    return settings_for(
        redis_url,
        with_keys.app,
        ops_database_url=with_keys.ops,
        credentials_key=SEALING_KEY,
        unauthorized_per_min=10_000,
    )


async def give(database: Database, **document: Any) -> None:
    """Replaces the settings of tenant `a`."""
    connection = await asyncpg.connect(database.ops)
    await connection.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = 'a'", json.dumps(document))
    await connection.close()


@pytest.fixture
async def books(settings: Settings, with_keys: Database) -> AsyncIterator[ChannelBooks]:  # noqa: F811 - the fixture
    """An operator's. Tenant `a` has no limits."""
    await give(with_keys, unlimited=True)
    pool = await open_pool(with_keys.ops, 2, environment="development")
    commands = Commands(connect(settings.redis_url))
    yield ChannelBooks(pool, pool, commands, Sealer(SEALING_KEY), registry.load())
    await commands.aclose()
    await pool.close()


@dataclass
class Line:
    """One channel of tenant `a`, from its provider's side."""

    provider: Any
    channel_id: str
    client: httpx.AsyncClient

    @property
    def path(self) -> str:
        return f"/v1/channels/{self.channel_id}/webhook"

    async def deliver(self, content: Any, **how: Any) -> httpx.Response:
        """Signs and sends it."""
        return await self.send(self.provider.signed(content, self.path, **how))

    async def send(self, request: Request) -> httpx.Response:
        return await self.client.post(self.path + request.query, content=request.body, headers=request.headers)


@asynccontextmanager
async def through_another(line: Line, settings: Settings, **changes: Any) -> AsyncIterator[Line]:
    """The same channel by another ingress, whose settings differ."""
    async with started(settings.model_copy(update=changes)) as application, application.client(None) as client:
        yield replace(line, client=client)


Connect = Callable[..., Awaitable[Line]]


@pytest.fixture
async def connect_line(running: Running, books: ChannelBooks) -> AsyncIterator[Connect]:  # noqa: F811 - the fixture
    """`await connect_line("whatsapp")` makes a channel; settings may be changed by name."""
    clients = []

    async def make(kind: str, *, tenant: str = "a", agent: str = "support", **settings: Any) -> Line:
        provider: Provider = PROVIDERS[kind]
        new = NewChannel(kind, kind, agent, "shop", None, {**provider.settings, **settings}, provider.credentials)
        made = await books.create(tenant, new, "tests")
        client = running.client(None)
        clients.append(client)
        return Line(provider, made.id, client)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def whatsapp(connect_line: Connect) -> Line:
    return await connect_line("whatsapp")


@pytest.fixture
def queued(redis: Redis) -> Callable[[], Awaitable[list[TurnPayload]]]:
    """What waits in the queue, oldest first."""

    async def read() -> list[TurnPayload]:
        ids = [name.decode().removeprefix("arq:job:") for name in await redis.keys("arq:job:*")]
        return [decode_turn(await redis.get(keys.arq_job(job_id))) for job_id in sorted(ids)]

    return read


@pytest.fixture
def inbox(redis: Redis) -> Callable[[], Awaitable[list[dict[str, Any]]]]:
    """What is kept beside the queue."""

    async def read() -> list[dict[str, Any]]:
        entries = await redis.xrange(keys.INBOX)
        return [row for _, entry in entries for row in msgspec.json.decode(entry[b"rows"])]

    return read
