"""The claim that stands behind the wait for a token: one round trip less, and nothing lost by it."""

import asyncio
from typing import Any

import pytest

from shared.redis import Line
from tests.conftest import Eventually
from tests.queue.harness import AT_ONCE_S, NEVER_S, QUEUE, Bench, nothing, replace
from workers.queue.scripts import Claimed, Claims
from workers.queue.taking import STANDING_SLOTS
from workers.queue.worker import LeaseWorker

TOKENS = f"{QUEUE}:wake"


async def stands(worker: LeaseWorker, eventually: Eventually) -> None:
    """Returns when the worker's claim waits in Redis."""
    assert await eventually(lambda: worker.has_lease and worker._taker._standing > 0)


async def test_a_job_arrives_with_its_token(bench: Bench, eventually: Eventually) -> None:
    async with bench.worker(nothing, poll_delay=NEVER_S) as worker:
        await stands(worker, eventually)
        claim, asked = worker.scripts.claim, []

        async def noted(*args: Any, **how: Any) -> Claims | None:
            asked.append(args)
            return await claim(*args, **how)

        replace(worker.scripts, claim=noted)
        job_id = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id], AT_ONCE_S)
        assert asked == []


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
        task.cancel()
    await asyncio.wait(worker._waking)


async def test_it_keeps_slots_only_where_there_are_many(bench: Bench, eventually: Eventually) -> None:
    go = asyncio.Event()

    async def wait(_job: Claimed) -> None:
        await go.wait()

    async with bench.worker(wait, poll_delay=NEVER_S, max_jobs=3) as worker:
        assert await eventually(lambda: worker.has_lease)
        ids = [await bench.accept(f"c{n}") for n in range(3)]
        assert await eventually(lambda: sorted(bench.started) == sorted(ids), AT_ONCE_S)
        assert worker._taker._standing == 0
        go.set()


async def test_a_server_that_forgot_the_script_is_asked_in_the_usual_way(bench: Bench, eventually: Eventually) -> None:
    async with bench.worker(nothing, poll_delay=NEVER_S) as worker:
        await stands(worker, eventually)
        worker._waking[1].cancel()  # the watch of the queue would notice as well
        await bench.redis.script_flush()
        job_id = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id], AT_ONCE_S)


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
        assert await eventually(lambda: bench.started == [job_id], AT_ONCE_S)
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
        assert await eventually(lambda: bench.started == [job_id], AT_ONCE_S)
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
        assert await eventually(lambda: bench.started == [job_id], AT_ONCE_S)
