"""The claim that stands behind the wait for a token: one round trip less, and nothing lost by it."""

import asyncio
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.worker import func

from shared.redis import Line, connect
from tests.conftest import Eventually
from tests.queue.harness import NEVER_S, QUEUE, Bench, nothing, replace
from tests.queue.test_watch import stock_client
from workers.queue import wake
from workers.queue.scripts import Claimed, Claims
from workers.queue.stopping import stop
from workers.queue.taking import STANDING_SLOTS
from workers.queue.worker import LeaseWorker

TOKENS = f"{QUEUE}:wake"


async def stands(worker: LeaseWorker, eventually: Eventually) -> None:
    """Returns when the worker's claim waits in Redis."""
    assert await eventually(lambda: worker.has_lease and worker._taker._standing > 0)


async def test_a_job_arrives_with_its_token(bench: Bench, eventually: Eventually) -> None:
    """Whatever other claim is under way: that of a look at the queue never ends here."""
    async with bench.worker(nothing, poll_delay=NEVER_S) as worker:
        await stands(worker, eventually)
        claim, go = worker.scripts.claim, asyncio.Event()

        async def late(*args: Any, **how: Any) -> Claims | None:
            await go.wait()
            return await claim(*args, **how)

        replace(worker.scripts, claim=late)
        job_id = await bench.accept()
        try:
            assert await eventually(lambda: bench.started == [job_id])
        finally:
            go.set()


async def test_the_queue_is_looked_at_again_when_there_may_be_more(bench: Bench, eventually: Eventually) -> None:
    worker = bench.build(nothing, poll_delay=NEVER_S)
    async with bench.run(worker):
        await stands(worker, eventually)
        await deafen(worker)
        worker._taker.looks_at = 0.0  # nothing is due before that
        for jobs, look in ((1, False), (STANDING_SLOTS, True), (STANDING_SLOTS + 1, True)):
            for n in range(jobs):
                await bench.accept(f"{jobs}-{n}")
            standing = worker._taker.stand()
            assert standing is not None
            assert worker._taker.stood(standing, await bench.commands.run(*standing.command)) is look
            await worker._taker.claim(100)
            await worker._quiet()


async def deafen(worker: LeaseWorker) -> None:
    """It takes no token any more."""
    for task in worker._waking:
        await stop(task)


async def test_it_keeps_slots_only_where_there_are_many(bench: Bench, eventually: Eventually) -> None:
    go = asyncio.Event()

    async def wait(_job: Claimed) -> None:
        await go.wait()

    async with bench.worker(wait, poll_delay=NEVER_S, max_jobs=3) as worker:
        assert await eventually(lambda: worker.has_lease)
        ids = [await bench.accept(f"c{n}") for n in range(3)]
        assert await eventually(lambda: sorted(bench.started) == sorted(ids), 2)
        assert worker._taker._standing == 0
        go.set()


async def test_it_stands_while_another_claim_is_under_way(bench: Bench, eventually: Eventually) -> None:
    """A look at the queue and the end of a wait fall together: Redis answers both in one turn of its loop."""
    async with bench.worker(nothing, poll_delay=NEVER_S, max_jobs=10) as worker:
        await stands(worker, eventually)
        await deafen(worker)
        claim, asked, go = worker.scripts.claim, asyncio.Event(), asyncio.Event()

        async def late(*args: Any, **how: Any) -> Claims | None:
            asked.set()
            await go.wait()
            return await claim(*args, **how)

        replace(worker.scripts, claim=late)
        looking = asyncio.ensure_future(worker._taker.claim(100))
        await asked.wait()
        standing = worker._taker.stand()
        assert standing is not None
        assert worker._taker.stood(standing, None) is False
        go.set()
        await looking


async def test_every_slot_is_filled_by_jobs_that_bring_no_token(
    bench: Bench, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that are kept for a claim with a token: it gets one."""
    monkeypatch.setattr(wake, "_BLOCK_S", int(NEVER_S))
    started, go = [], asyncio.Event()

    async def wait(ctx: dict[str, Any]) -> None:
        started.append(ctx["job_id"])
        await go.wait()

    pool = ArqRedis(pool_or_conn=connect(bench.settings.redis_url).connection_pool)
    function: Any = wait
    worker = LeaseWorker([func(function, name="wait")], redis_pool=pool, handle_signals=False, poll_delay=NEVER_S)
    async with stock_client(bench.settings.redis_url) as client, bench.run(worker):
        await stands(worker, eventually)
        for n in range(11):
            await client.enqueue_job("wait", _job_id=f"job-{n}")
        assert await eventually(lambda: len(started) == 10)
        go.set()
        assert await eventually(lambda: len(started) == 11)


async def test_a_server_that_forgot_the_script_is_asked_in_the_usual_way(bench: Bench, eventually: Eventually) -> None:
    async with bench.worker(nothing, poll_delay=NEVER_S) as worker:
        await stands(worker, eventually)
        worker._waking[1].cancel()  # the watch of the queue would notice as well
        await bench.redis.script_flush()
        job_id = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id], 2)


async def test_a_job_whose_answer_was_lost_goes_back_uncounted(
    bench: Bench, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends after the claim was made and before its answer was read."""
    ask = Line.ask

    async def lose(line: Line, *commands: Any, **how: Any) -> list[Any]:
        answer = await ask(line, *commands, **how)
        if commands[0][0] == "BLPOP" and len(commands) == 2 and answer[0] is not None and not lost.is_set():
            lost.set()
            raise ConnectionError("cut")
        return answer

    lost = asyncio.Event()
    monkeypatch.setattr(Line, "ask", lose)
    async with bench.worker(nothing, poll_delay=0.1) as worker:
        await stands(worker, eventually)
        job_id = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id], 10)
        assert lost.is_set()
        assert await eventually(lambda: ended(bench, job_id))
    assert await bench.attempts(job_id) == 1


async def ended(bench: Bench, job_id: str) -> bool:
    return (await bench.record(job_id)).state.ended


async def test_a_worker_that_leaves_takes_no_job_with_it(bench: Bench, eventually: Eventually) -> None:
    """What its claim was given while it left goes to the next worker, and was no attempt."""
    async with bench.worker(nothing, poll_delay=NEVER_S) as leaving:
        await stands(leaving, eventually)
        leaving.allow_pick_jobs = False
        job_id = await bench.accept()

        async def put_back() -> bool:
            return await bench.redis.zscore(QUEUE, job_id) > 0 and await bench.attempts(job_id) == 0

        assert await eventually(put_back)
        assert bench.started == []
    async with bench.worker(nothing, poll_delay=NEVER_S):
        assert await eventually(lambda: bench.started == [job_id], 2)
    assert await bench.attempts(job_id) == 1


async def test_strays_of_a_worker_that_leaves_go_back(bench: Bench, eventually: Eventually) -> None:
    """Its claim was made in the very moment in which it stopped listening."""
    worker = bench.build(nothing, poll_delay=NEVER_S)
    async with bench.run(worker):
        await stands(worker, eventually)
        worker.allow_pick_jobs = False
        await deafen(worker)
        job_id = await bench.accept()
        claims = await bench.scripts().claim(worker._membership.name, 1)
        assert claims is not None
        assert [job.id for job in claims.jobs] == [job_id]
    assert await bench.attempts(job_id) == 0
    async with bench.worker(nothing, poll_delay=NEVER_S):
        assert await eventually(lambda: bench.started == [job_id], 2)
