"""The lease: kept through a blocked loop, given up by a wedged one, and never revived."""

import asyncio
import logging
import time

import pytest

from tests.conftest import Eventually
from tests.queue.harness import AT_ONCE_S, QUEUE, Bench, nothing
from workers.queue.scripts import Claimed

LEASES = f"{QUEUE}:leases"


async def leased(bench: Bench) -> list[str]:
    return [name.decode() for name in await bench.redis.zrange(LEASES, 0, -1)]


def block(seconds: float) -> None:
    """The event loop is busy, as with a careless computation."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


async def test_a_blocked_event_loop_does_not_lose_the_lease(bench: Bench, eventually: Eventually) -> None:
    go = asyncio.Event()

    async def wait(_job: Claimed) -> None:
        await go.wait()

    async with bench.worker(wait, lease_s=1.5):
        job_id = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id])
        (name,) = await leased(bench)
        block(4.5)
        await bench.join("other")
        assert await bench.claim("other") == [], "its job would run twice"
        assert name in await leased(bench)
        go.set()
        assert await eventually(lambda: not_running(bench, job_id))
    assert bench.started == [job_id]


async def not_running(bench: Bench, job_id: str) -> bool:
    return (await bench.record(job_id)).state.ended


async def test_a_wedged_event_loop_loses_the_lease_and_its_jobs(
    bench: Bench, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    async def block_once(job: Claimed) -> None:
        if job.attempt == 1:
            block(4.5)
            await asyncio.sleep(0)

    async with bench.worker(block_once, lease_s=1.5, wedged_s=1.5):
        job_id = await bench.accept()
        assert await eventually(lambda: not_running(bench, job_id))
    assert bench.started == [job_id, job_id]
    assert "giving up the lease" in caplog.text


async def test_a_worker_that_lost_its_lease_stops_its_jobs_and_comes_back_under_a_new_name(
    bench: Bench, eventually: Eventually
) -> None:
    stopped: list[int] = []

    async def first_attempt_hangs(job: Claimed) -> None:
        if job.attempt == 1:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(job.attempt)

    async with bench.worker(first_attempt_hangs, lease_s=4.0, max_jobs=1):  # full: no claim tells it
        job_id = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id])
        (old,) = await leased(bench)
        await bench.kill(old)
        assert await eventually(lambda: not_running(bench, job_id))
        assert old not in await leased(bench)
        assert len(await leased(bench)) == 1
    assert stopped == [1]
    assert bench.started == [job_id, job_id]
    assert await leased(bench) == []


async def test_jobs_of_a_killed_worker_are_found_without_anybody_polling(bench: Bench, eventually: Eventually) -> None:
    job_id = await bench.accept()
    await bench.join("dead", lease_ms=2_000)
    await bench.claim("dead")
    async with bench.worker(nothing):
        assert await eventually(lambda: bench.started == [job_id], AT_ONCE_S)


async def test_a_closed_worker_leaves_no_lease_and_no_thread(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with bench.worker(nothing) as worker:
        await worker._poll_iteration()
        (name,) = await leased(bench)
        thread = worker._membership._thread
        assert thread is not None
        assert thread._thread.is_alive()
    assert await leased(bench) == []
    assert not thread._thread.is_alive()
    assert not await bench.redis.exists(f"{QUEUE}:held:{name}", f"{QUEUE}:cancel:{name}")
    assert caplog.records == []
