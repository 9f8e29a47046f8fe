"""A process refuses the Redis or the Postgres of another deployment; the release writes down whose database it is."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from redis.asyncio import Redis

from ingress.app import create_app
from ops.console.app import opened as console_opened
from ops.console.upkeep import keep_ledger_months
from ops.stack.release import release
from shared import deployment, keys
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.errors import ConfigError
from shared.redis import Commands, connect
from tests.conftest import Database, Eventually
from workers.main import open_worker

FOREIGN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    opened = await open_pool(database.app, 2, environment="production")
    yield opened
    await opened.close()


@pytest.fixture
async def commands(redis_url: str) -> AsyncIterator[Commands]:
    opened = Commands(connect(redis_url))
    yield opened
    await opened.aclose()


@pytest.fixture
def own(redis_url: str, database: Database) -> Settings:
    return Settings.read({"redis_url": redis_url, "database_url": database.app, "ops_database_url": database.ops})


async def set_environment(database: Database, environment: str) -> None:
    connection = await asyncpg.connect(database.owner)
    await connection.execute("UPDATE deployment SET environment = $1", environment)
    await connection.close()


async def test_the_first_process_claims_an_empty_redis_and_others_agree(commands: Commands, pool: Pool) -> None:
    await asyncio.gather(*(deployment.claim(commands, pool, "production") for _ in range(5)))
    assert await deployment.of_redis(commands) == (await deployment.of_database(pool)).id
    await deployment.claim(commands, pool, "staging")


async def test_a_foreign_redis_is_refused_and_left_alone(commands: Commands, pool: Pool) -> None:
    await commands.run("SET", keys.DEPLOYMENT, FOREIGN)
    with pytest.raises(ConfigError, match=f"the Redis of deployment {FOREIGN}"):
        await deployment.claim(commands, pool, "production")
    assert await deployment.of_redis(commands) == FOREIGN


async def test_another_environments_database_is_refused(commands: Commands, pool: Pool, database: Database) -> None:
    await set_environment(database, "production")
    with pytest.raises(ConfigError, match="the database of production, and SWITCHBOARD_ENVIRONMENT is staging"):
        await deployment.claim(commands, pool, "staging")
    assert await deployment.of_redis(commands) is None


async def test_no_process_starts_on_a_foreign_redis(own: Settings, redis: Redis) -> None:
    await redis.set(keys.DEPLOYMENT, FOREIGN)
    with pytest.raises(ConfigError, match="mend one of them"):
        async with open_worker(own):
            raise AssertionError("the worker started")
    with pytest.raises(ConfigError, match="mend one of them"):
        async with console_opened(own):
            raise AssertionError("the console started")
    app = create_app(own)
    with pytest.raises(ConfigError, match="mend one of them"):
        async with app.router.lifespan_context(app):
            raise AssertionError("the ingress started")


async def test_an_ingress_that_learns_it_late_is_not_ready(
    own: Settings, redis: Redis, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started while Postgres was away, it serves; then Postgres comes, and is another deployment's."""
    monkeypatch.setattr("ingress.archive.LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr("ingress.archive.REOPEN_AFTER_S", 0.0)
    there = own.database_url
    app = create_app(own.model_copy(update={"database_url": "postgresql://switchboard_app@127.0.0.1:1/x"}))
    async with app.router.lifespan_context(app):
        archive = app.state.ingress.archive
        assert archive.usable
        await redis.set(keys.DEPLOYMENT, FOREIGN)
        archive._settings = own.model_copy(update={"database_url": there})
        await eventually(lambda: not archive.usable)
        await redis.delete(keys.DEPLOYMENT)
        await eventually(lambda: archive.usable)


def test_a_release_writes_the_environment_once_and_refuses_another(database: Database) -> None:
    assert release(database.owner, "production") == ["this database belongs to production from now on"]
    assert release(database.owner, "production") == []
    with pytest.raises(ConfigError, match="the database of production"):
        release(database.owner, "staging")


def test_development_leaves_it_open(database: Database) -> None:
    assert release(database.owner, "development") == []
    assert release(database.owner, "staging") == ["this database belongs to staging from now on"]


async def test_a_copied_database_becomes_a_deployment_of_its_own(database: Database, pool: Pool) -> None:
    await set_environment(database, "production")
    before = await deployment.of_database(pool)
    await asyncio.to_thread(release, database.owner, "staging", adopt=True)
    after = await deployment.of_database(pool)
    assert (after.environment, after.id == before.id) == ("staging", False)


async def test_neither_app_nor_ops_may_change_whose_it_is(database: Database) -> None:
    for dsn in (database.app, database.ops):
        connection = await asyncpg.connect(dsn)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE deployment SET id = gen_random_uuid()")
        await connection.close()


async def test_the_console_makes_the_ledgers_next_months(database: Database, eventually: Eventually) -> None:
    connection = await asyncpg.connect(database.superuser)
    month = await connection.fetchval("SELECT to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY_MM')")
    await connection.execute(f"DROP TABLE llm_calls_{month}")
    ops = await open_pool(database.ops, 1, environment="production")
    keeping = asyncio.create_task(keep_ledger_months(ops))
    await eventually(lambda: connection.fetchval("SELECT to_regclass($1)", f"llm_calls_{month}"))
    keeping.cancel()
    await asyncio.wait([keeping])
    await ops.close()
    await connection.close()
