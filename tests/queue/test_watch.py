"""Jobs of clients that push no wake token, stock arq's: noticed at once, by polling when that fails, without a herd."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import func

from shared.redis import connect
from tests.conftest import Eventually
from tests.queue.harness import AT_ONCE_S, NEVER_S, QUEUE, Bench
from workers.queue.stopping import stop
from workers.queue.wake import Waker
from workers.queue.watch import QueueWatch
from workers.queue.worker import LeaseWorker

FAR_MS = 1e14


@asynccontextmanager
async def stock_client(url: str) -> AsyncIterator[ArqRedis]:
    client = ArqRedis(pool_or_conn=connect(url).connection_pool)
    yield client
    await client.aclose(close_connection_pool=True)


async def greet(_ctx: object, name: str) -> str:
    return f"hello {name}"


def greeter(url: str, **options: Any) -> LeaseWorker:
    function: Any = greet
    pool = ArqRedis(pool_or_conn=connect(url).connection_pool)
    return LeaseWorker([func(function, name="greet")], redis_pool=pool, lease_s=60.0, handle_signals=False, **options)


async def enqueue(client: ArqRedis, **how: Any) -> Job:
    job = await client.enqueue_job("greet", "you", **how)
    assert job is not None
    return job


async def watchers(bench: Bench) -> list[int]:
    """Ids of the connections that are told of changes."""
    return [int(client["id"]) for client in await bench.redis.client_list() if "t" in client["flags"]]


async def looked(bench: Bench) -> bool:
    """Somebody watches, and has looked."""
    info = await bench.redis.info("stats")
    return bool(await watchers(bench)) and int(info["tracking_total_keys"]) > 0


async def test_a_stock_clients_job_starts_without_a_token_and_without_polling(
    bench: Bench, eventually: Eventually
) -> None:
    url = bench.settings.redis_url
    async with stock_client(url) as client, bench.run(greeter(url, poll_delay=NEVER_S)):
        assert await eventually(lambda: looked(bench))
        for _ in range(3):
            job = await enqueue(client)
            assert await job.result(timeout=AT_ONCE_S, poll_delay=0.01) == "hello you"


async def test_a_watch_that_lost_its_connection_comes_back_and_sees_what_it_missed(
    bench: Bench, eventually: Eventually
) -> None:
    url = bench.settings.redis_url
    async with stock_client(url) as client, bench.run(greeter(url, poll_delay=NEVER_S)):
        assert await eventually(lambda: looked(bench))
        (watcher,) = await watchers(bench)
        await bench.redis.client_kill_filter(_id=str(watcher))
        job = await enqueue(client)
        assert await job.result(timeout=AT_ONCE_S, poll_delay=0.01) == "hello you"


async def test_a_worker_that_may_not_watch_polls(
    bench: Bench, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.commands.run("ACL", "SETUSER", "blind", "on", "nopass", "~*", "&*", "+@all", "-client|tracking")
    url = bench.settings.redis_url.replace("redis://", "redis://blind:any@")
    async with stock_client(bench.settings.redis_url) as client, bench.run(greeter(url, poll_delay=0.05)):
        assert await eventually(lambda: "cannot be watched" in caplog.text)
        job = await enqueue(client)
        assert await job.result(timeout=AT_ONCE_S, poll_delay=0.01) == "hello you"
    await bench.commands.run("ACL", "DELUSER", "blind")


async def test_changes_that_make_nothing_due_cost_an_idle_worker_few_looks(
    bench: Bench, eventually: Eventually
) -> None:
    pool = bench.redis.connection_pool
    waker = Waker(pool, QUEUE, lambda: True)
    watch = QueueWatch(pool, QUEUE, waker)
    running = asyncio.ensure_future(watch.run())
    assert await eventually(lambda: looked(bench))
    changes = 500
    for n in range(changes):
        await bench.redis.zadd(QUEUE, {f"later-{n}": FAR_MS})
    assert 1 < watch.looks < changes / 5
    assert not waker.event.is_set(), "nothing is due"
    await bench.redis.zadd(QUEUE, {"now": 1.0})
    await asyncio.wait_for(waker.event.wait(), AT_ONCE_S)
    await stop(running)


async def test_a_full_worker_does_not_look(bench: Bench, eventually: Eventually) -> None:
    full = True
    pool = bench.redis.connection_pool
    waker = Waker(pool, QUEUE, lambda: not full)
    watch = QueueWatch(pool, QUEUE, waker)
    running = asyncio.ensure_future(watch.run())
    assert await eventually(lambda: watchers(bench))
    await bench.redis.zadd(QUEUE, {"now": 1.0})
    assert watch.looks == 0
    full = False
    waker.nudge()
    assert await eventually(lambda: watch.looks == 1)
    await stop(running)
