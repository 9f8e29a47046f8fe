"""Waking up: by token and at once, without the herd, and never by chance only."""

import asyncio
from functools import partial
from typing import Any

from arq.connections import ArqRedis
from arq.cron import cron
from arq.worker import func

from shared.redis import connect
from tests.conftest import Eventually
from tests.queue.harness import NEVER_S, QUEUE, Bench, nothing, replace
from workers.queue.scripts import Claimed, Claims
from workers.queue.stopping import stop
from workers.queue.wake import Waker
from workers.queue.worker import LeaseWorker

TOKENS = f"{QUEUE}:wake"


def has_started(bench: Bench, ids: list[str]) -> bool:
    return bench.started == ids


async def blocked_clients(bench: Bench) -> int:
    info = await bench.redis.info("clients")
    return int(info["blocked_clients"])


async def test_an_idle_worker_starts_a_new_job_without_polling(bench: Bench, eventually: Eventually) -> None:
    async with bench.worker(nothing, poll_delay=NEVER_S):
        assert await eventually(lambda: blocked_clients(bench))
        job_id = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id], 2)


async def test_a_job_accepted_during_a_claim_does_not_wait_for_the_next_poll(
    bench: Bench, eventually: Eventually
) -> None:
    """A worker with so few slots has no claim that stands."""
    answered, go = asyncio.Event(), asyncio.Event()
    async with bench.worker(nothing, max_jobs=3) as worker:
        assert await eventually(lambda: blocked_clients(bench))
        claim = worker.scripts.claim

        async def slow_claim(*args: Any, **kwargs: Any) -> Claims | None:
            claims = await claim(*args, **kwargs)
            answered.set()
            await go.wait()
            return claims

        replace(worker.scripts, claim=slow_claim)  # the answer is held back
        worker._nudge()
        await answered.wait()
        job_id = await bench.accept()

        async def token_taken() -> bool:
            return not await bench.redis.exists(TOKENS)

        try:
            assert await eventually(token_taken)
        finally:
            go.set()
        assert await eventually(lambda: bench.started == [job_id], 2)


async def test_a_token_that_reaches_a_full_worker_goes_to_another(bench: Bench, eventually: Eventually) -> None:
    full, free = False, True
    pool = bench.redis.connection_pool
    first, second = (Waker(pool, QUEUE, lambda: not full), Waker(pool, QUEUE, lambda: free))
    running = [asyncio.ensure_future(first.run())]
    assert await eventually(lambda: blocked_clients(bench))
    full = True
    await bench.commands.run("LPUSH", TOKENS, "1")

    async def put_back() -> bool:
        return await bench.commands.run("LLEN", TOKENS) == 1 and not await blocked_clients(bench)

    assert await eventually(put_back)
    running.append(asyncio.ensure_future(second.run()))
    await asyncio.wait_for(second.event.wait(), 2)
    assert not first.event.is_set()
    for task in running:
        await stop(task)


async def test_a_full_worker_takes_the_next_job_as_soon_as_a_slot_is_free(bench: Bench, eventually: Eventually) -> None:
    gates = {n: asyncio.Event() for n in range(3)}

    async def wait_for_gate(_job: Claimed) -> None:
        await gates[len(bench.started) - 1].wait()

    async with bench.worker(wait_for_gate, max_jobs=1, poll_delay=NEVER_S):
        ids = [await bench.accept(f"c{n}") for n in range(3)]
        for n in range(3):
            assert await eventually(partial(has_started, bench, ids[: n + 1]), 2)
            gates[n].set()
        assert await eventually(lambda: not_running(bench, ids))
        later = await bench.accept("later")
        gates[3] = asyncio.Event()
        assert await eventually(partial(has_started, bench, [*ids, later]), 2), "it is awake again"
        gates[3].set()


async def not_running(bench: Bench, ids: list[str]) -> bool:
    return all([(await bench.record(job_id)).state.ended for job_id in ids])


async def test_a_retry_is_taken_when_it_is_due_without_polling(bench: Bench, eventually: Eventually) -> None:
    await bench.join("w")
    job_id = await bench.accept()
    (job,) = await bench.claim("w")
    async with bench.worker(nothing, poll_delay=NEVER_S):
        assert await eventually(lambda: blocked_clients(bench))
        await bench.finish(job, "retry", delay_ms=200)
        assert await eventually(lambda: bench.started == [job_id], 2)


async def test_a_stock_client_which_pushes_no_token_is_served_by_polling(bench: Bench, eventually: Eventually) -> None:
    async def greet(_ctx: object, name: str) -> str:
        return f"hello {name}"

    function: Any = greet
    client = ArqRedis(pool_or_conn=connect(bench.settings.redis_url).connection_pool)
    worker = LeaseWorker([func(function, name="greet")], redis_pool=client, poll_delay=0.05, handle_signals=False)
    async with bench.run(worker):
        job = await client.enqueue_job("greet", "you")
        assert job is not None
        assert await job.result(timeout=2, poll_delay=0.02) == "hello you"


async def test_a_cron_job_starts_when_it_is_due_without_polling(bench: Bench) -> None:
    ran = asyncio.Event()

    async def sweep(_ctx: object) -> None:
        ran.set()

    function: Any = sweep
    pool = ArqRedis(pool_or_conn=connect(bench.settings.redis_url).connection_pool)
    planned = [cron(function, hour=1, run_at_startup=True)]
    worker = LeaseWorker([], cron_jobs=planned, redis_pool=pool, poll_delay=NEVER_S, handle_signals=False)
    async with bench.run(worker):
        await asyncio.wait_for(ran.wait(), 2)
