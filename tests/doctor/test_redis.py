"""What the doctor says of Redis, each fault made on a real server."""

import asyncpg
import pytest
from redis.asyncio import Redis

from ops.doctor.findings import Level
from ops.stack.valkey import Valkey
from shared import keys
from tests.conftest import Database, Eventually
from tests.doctor.conftest import Examine


async def test_a_deployment_in_good_order_has_no_fault(examined: Examine) -> None:
    found = await examined()
    assert [one for one in found.values() if one.level is Level.FAULT] == []
    assert {"redis.version", "redis.eviction", "redis.appendfsync", "redis.memory", "redis.writes"} <= found.keys()


@pytest.mark.parametrize(
    ("name", "value", "check", "level", "said", "mend"),
    [
        ("maxmemory-policy", "allkeys-lru", "redis.eviction", "fault", "allkeys-lru", "maxmemory-policy noeviction"),
        ("appendonly", "no", "redis.appendonly", "fault", "a restart loses accepted jobs", "appendonly yes"),
        ("appendfsync", "everysec", "redis.appendfsync", "warning", "last second", "appendfsync always"),
        ("appendfsync", "no", "redis.appendfsync", "warning", "accepted jobs when it stops", "appendfsync always"),
        ("maxmemory", "0", "redis.memory", "warning", "maxmemory is not set", "maxmemory 2gb"),
    ],
)
async def test_a_setting_that_can_lose_jobs(
    examined: Examine, server: Redis, name: str, value: str, check: str, level: str, said: str, mend: str
) -> None:
    await server.config_set(name, value)
    finding = (await examined())[check]
    assert (finding.level, said in finding.what, (finding.mend or "").endswith(mend)) == (level, True, True), finding


async def test_everysec_is_for_development(examined: Examine, server: Redis) -> None:
    await server.config_set("appendfsync", "everysec")
    assert (await examined(environment="development"))["redis.appendfsync"].level is Level.OK


@pytest.mark.parametrize(("share", "level"), [(0.7, Level.WARNING), (0.95, Level.FAULT)])
async def test_a_full_server_is_said_before_and_after_it_refuses(
    examined: Examine, server: Redis, share: float, level: Level
) -> None:
    await server.setrange("filler", 20_000_000, b"x")  # made by the server: no buffer comes and goes
    used = (await server.info("memory"))["used_memory"]
    await server.config_set("maxmemory", int(used / share))
    assert (await examined())["redis.memory"].level is level


async def test_a_replica_is_not_for_us(
    examined: Examine, server: Redis, valkey: Valkey, eventually: Eventually
) -> None:
    await server.replicaof("127.0.0.1", valkey.port)  # type: ignore[no-untyped-call]  # redis-py
    found = await examined()
    assert found["redis.role"].level is Level.FAULT
    assert found["redis.writes"].level is Level.FAULT


async def test_without_redis_everything_else_is_still_examined(examined: Examine) -> None:
    found = await examined(redis_url="redis://:canary-password@127.0.0.1:1/0")
    assert found["redis.reachable"].level is Level.FAULT
    assert found["postgres.migrations"].level is Level.OK
    assert found["providers.keys"].level is Level.OK


async def test_the_redis_of_another_deployment(examined: Examine, server: Redis) -> None:
    await server.set(keys.DEPLOYMENT, "11111111-1111-4111-8111-111111111111")
    finding = (await examined())["deployment"]
    assert finding.level is Level.FAULT
    assert "11111111-1111-4111-8111-111111111111" in finding.what
    assert "DEL sb:deployment" in (finding.mend or "")


async def test_the_database_of_another_environment(examined: Examine, database: Database) -> None:
    connection = await asyncpg.connect(database.owner)
    await connection.execute("UPDATE deployment SET environment = 'staging'")
    await connection.close()
    finding = (await examined())["deployment"]
    assert finding.level is Level.FAULT
    assert "the database of staging" in finding.what
