"""A cancellation that redis-py swallows stops us all the same."""

import asyncio

from tests.conftest import PATIENCE_S
from tests.queue.harness import QUEUE, Bench, nothing, replace
from workers.queue.stopping import stop
from workers.queue.wake import Waker


async def test_a_waker_can_be_stopped_at_any_step_of_its_life(bench: Bench) -> None:
    for steps in range(12):
        queue = f"{QUEUE}:{steps}"
        waker = Waker(bench.redis.connection_pool, queue, lambda: True)
        running = asyncio.ensure_future(waker.run())
        await bench.commands.run("LPUSH", f"{queue}:wake", "1")
        await waker.event.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.wait_for(stop(running), PATIENCE_S)
        assert running.done()


async def test_a_worker_told_to_stop_ends_even_when_a_call_swallows_it(bench: Bench) -> None:
    worker = bench.build(nothing, poll_delay=0.01)
    waiting = asyncio.Event()

    async def deaf() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            replace(worker, heart_beat=healthy)  # once is enough

    healthy = worker.heart_beat
    replace(worker, heart_beat=deaf)  # as redis-py can be
    running = asyncio.ensure_future(worker.async_run())
    await waiting.wait()
    await asyncio.wait_for(worker.close(), PATIENCE_S)
    await asyncio.wait([running], timeout=PATIENCE_S)
    assert running.cancelled()
