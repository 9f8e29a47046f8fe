"""Health that tells the truth, and admission that closes before Redis is full."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from ops.stack.directory import DataDirectory
from ops.stack.valkey import Valkey, start_valkey
from tests.conftest import Database, Eventually
from tests.ingress.harness import MESSAGES, Running, Worker, accepted, settings_for, started


async def test_the_process_is_live_and_ready(anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.get("/health/live")).json() == {"status": "ok"}
    ready = await anonymous.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "parts": {"redis": "ok", "agents": "ok"}})


async def test_the_stack_is_well_while_a_worker_lives(anonymous: httpx.AsyncClient, worker: Worker) -> None:
    before = await anonymous.get("/health/stack")
    await worker.join()
    during = await anonymous.get("/health/stack")
    await worker.leave()
    after = await anonymous.get("/health/stack")
    assert [response.status_code for response in (before, during, after)] == [503, 200, 503]
    assert before.json()["parts"] == {
        "redis": "ok",
        "agents": "ok",
        "postgres": "ok",
        "workers:default": "no live worker",
    }
    assert set(during.json()["parts"].values()) == {"ok"}


async def test_a_worker_whose_lease_is_over_does_not_count(
    anonymous: httpx.AsyncClient, worker: Worker, eventually: Eventually
) -> None:
    await worker.join(lease_ms=1)

    async def unwell() -> bool:
        return (await anonymous.get("/health/stack")).status_code == 503

    await eventually(unwell)


async def test_a_database_without_migrations_stops_the_start(redis_url: str, empty_database: Database) -> None:
    with pytest.raises(Exception, match="switchboard migrate"):
        async with started(settings_for(redis_url, empty_database.app)):
            pass


@pytest.fixture
def small_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with DataDirectory(tmp_path / "v") as directory:
        server = start_valkey(directory)
        yield server
        server.child.stop()


@pytest.fixture
async def small(small_valkey: Valkey, with_keys: Database) -> AsyncIterator[tuple[Running, httpx.AsyncClient, Redis]]:
    """An ingress on a Redis whose memory may be changed."""
    async with (
        started(settings_for(small_valkey.url(), with_keys.app)) as running,
        running.client() as client,
        Redis.from_url(small_valkey.url()) as redis,
    ):
        yield running, client, redis


async def test_admission_closes_above_four_fifths_of_redis_memory_and_opens_again(
    small: tuple[Running, httpx.AsyncClient, Redis],
) -> None:
    running, client, redis = small
    job = await accepted(client)
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / 0.85))
    await running.ingress.pressure.sample()
    refused = await client.post(MESSAGES, json={"message": "x"})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/queue_full")
    assert int(refused.headers["retry-after"]) > 0
    assert (await client.delete(f"/v1/jobs/{job['id']}")).status_code == 200  # what was accepted can still be handled
    await redis.config_set("maxmemory", used * 10)
    await running.ingress.pressure.sample()
    await accepted(client)


async def test_a_redis_that_is_full_answers_503_not_500(
    small: tuple[Running, httpx.AsyncClient, Redis],
) -> None:
    running, client, redis = small
    await accepted(client)
    await redis.config_set("maxmemory", 1)
    running.ingress.pressure.full = False  # before the next sample sees it
    refused = await client.post(MESSAGES, json={"message": "x"})
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["parts"]["redis"]) == (503, "cannot be reached, or takes no writes")


async def test_the_sampler_runs_by_itself(
    small: tuple[Running, httpx.AsyncClient, Redis], eventually: Eventually
) -> None:
    running, _client, redis = small
    await redis.config_set("maxmemory", 1)
    await eventually(lambda: running.ingress.pressure.full)


async def test_production_refuses_a_redis_that_can_lose_jobs(tmp_path: Path, with_keys: Database) -> None:
    with DataDirectory(tmp_path / "v") as directory:
        server = start_valkey(directory, settings={"appendonly": "no"})
        try:
            unsafe = settings_for(server.url(), with_keys.app, environment="production")
            with pytest.raises(Exception, match="appendonly"):
                async with started(unsafe):
                    pass
        finally:
            server.child.stop()
