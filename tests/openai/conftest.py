"""The whole product behind the real SDKs: an ingress that serves HTTP, a worker, and the stand-in model server."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from openai import AsyncOpenAI, OpenAI
from redis.asyncio import Redis

from ops.stack.standin import Standin
from shared.config import Settings
from shared.redis import Commands
from tests.conftest import Database
from tests.ingress.harness import Served, Worker, served
from tests.keys import give_key
from tests.openai.harness import KEY, STRANGER, Product
from tests.turn.deployment import TENANT, Deployment


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "secret": "a secret of tests, long enough",
            "retry_base_s": 0.01,
            "lease_s": 8.0,  # a machine under load must not cost a stream its attempt
            "drain_s": 1.0,
            "sse_keepalive_s": 0.2,
            "openai_wait_max_s": 90,
            "degraded_reply": "none",
        }
    )


@pytest.fixture
async def deployment(settings: Settings, database: Database, standin: Standin) -> AsyncIterator[Deployment]:
    async with Deployment.open(settings, database, standin) as opened:
        owner = await asyncpg.connect(database.owner)
        for key, tenant in ((KEY, TENANT), (STRANGER, "stranger")):
            await give_key(owner, tenant, key, ["chat"])
            await owner.execute("SET switchboard.migrating = 'on'")
            await owner.execute("""UPDATE tenants SET settings = '{"unlimited": true}' WHERE tenant_id = $1""", tenant)
        await owner.close()
        yield opened


@pytest.fixture
async def server(settings: Settings, deployment: Deployment) -> AsyncIterator[Served]:
    async with served(settings) as made:
        yield made


@pytest.fixture
async def product(server: Served, deployment: Deployment) -> AsyncIterator[Product]:
    """With a worker that runs."""
    async with deployment.worker():
        yield Product(server, deployment)


@pytest.fixture
async def client(server: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key=KEY, base_url=f"{server.url}/v1", max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


@pytest.fixture
async def stranger(server: Served) -> AsyncIterator[AsyncOpenAI]:
    """Of another tenant."""
    async with AsyncOpenAI(api_key=STRANGER, base_url=f"{server.url}/v1", max_retries=0) as made:
        yield made


@pytest.fixture
def sync_client(server: Served) -> Iterator[OpenAI]:
    with OpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0, _strict_response_validation=True) as made:
        yield made


@pytest.fixture
async def hands(redis_url: str, deployment: Deployment) -> AsyncIterator[Worker]:
    """A worker that does what the test says."""
    commands = Commands(Redis.from_url(redis_url))
    yield Worker(commands)
    await commands.aclose()
