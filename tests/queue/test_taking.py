"""Claims: within the slots there are, and none forgotten when an answer is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import Unavailable
from tests.conftest import Eventually
from tests.queue.harness import QUEUE, Bench, nothing, replace
from workers.queue.scripts import Claimed


def losing_first(call: Callable[..., Any], error: Exception, when: Callable[..., bool]) -> Callable[..., Any]:
    """The call reaches the server; the first answer for which `when(answer)` does not reach us."""
    lost = False

    async def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal lost
        answer = await call(*args, **kwargs)
        if not lost and when(answer):
            lost = True
            raise error
        return answer

    return wrapped


async def ended(bench: Bench, ids: list[str]) -> bool:
    return all([(await bench.record(job_id)).state.ended for job_id in ids])


async def test_jobs_of_a_claim_whose_answer_was_lost_run_and_their_attempt_is_not_counted(
    bench: Bench, eventually: Eventually
) -> None:
    ids = [await bench.accept(f"c{n}") for n in range(5)]
    worker = bench.build(nothing, poll_delay=0.05)
    worker._open()
    claim = losing_first(worker.scripts.claim, RedisConnectionError("lost"), lambda claims: bool(claims.jobs))
    replace(worker.scripts, claim=claim)  # real, but for one answer
    async with bench.run(worker):
        assert await eventually(lambda: ended(bench, ids))
    assert sorted(bench.started) == ids
    assert [(await bench.record(job_id)).attempts for job_id in ids] == [1] * 5


async def test_jobs_claimed_along_with_a_finish_whose_answer_was_lost_run(bench: Bench, eventually: Eventually) -> None:
    ids = [await bench.accept(f"c{n}") for n in range(4)]
    worker = bench.build(nothing, poll_delay=0.05, max_jobs=1)
    worker._open()
    finish = losing_first(worker.scripts.finish, Unavailable("lost"), lambda answer: bool(answer[1].jobs))
    replace(worker.scripts, finish=finish)  # real, but for one answer
    async with bench.run(worker):
        assert await eventually(lambda: ended(bench, ids))
    assert sorted(bench.started) == ids
    assert [(await bench.record(job_id)).attempts for job_id in ids] == [1] * 4
    assert await bench.redis.zrange(f"{QUEUE}:leases", 0, -1) == []


async def test_no_more_jobs_run_than_there_are_slots(bench: Bench, eventually: Eventually) -> None:
    running, most = 0, 0

    async def count(_job: Claimed) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await bench.redis.ping()
        running -= 1

    ids = [await bench.accept(f"c{n}") for n in range(200)]
    async with bench.worker(count, max_jobs=7, poll_delay=0.001):
        assert await eventually(lambda: ended(bench, ids))
    assert most == 7
    assert sorted(bench.started) == ids


async def test_slots_a_claim_may_fill_are_not_filled_by_a_finish(bench: Bench, eventually: Eventually) -> None:
    go_on, answer = asyncio.Event(), asyncio.Event()
    answer.set()

    async def wait(_job: Claimed) -> None:
        await go_on.wait()

    worker = bench.build(wait, max_jobs=2)
    worker._open()
    claim, finish = worker.scripts.claim, worker.scripts.finish
    asked: list[tuple[str, int]] = []

    async def slow_claim(name: str, n: int, **only: Any) -> Any:
        asked.append(("claim", n))
        await answer.wait()
        return await claim(name, n, **only)

    async def watched_finish(name: str, ends: Any, n: int) -> Any:
        asked.append(("finish", n))
        return await finish(name, ends, n)

    replace(worker.scripts, claim=slow_claim)  # real, but slow
    replace(worker.scripts, finish=watched_finish)  # real, and watched
    async with bench.run(worker):
        first = await bench.accept("c1")
        assert await eventually(lambda: bench.started == [first])
        answer.clear()
        asked.clear()
        worker._nudge()
        assert await eventually(lambda: asked == [("claim", 1)])
        go_on.set()
        assert await eventually(lambda: asked == [("claim", 1), ("finish", 1)])
        answer.set()


async def test_a_claim_cancelled_on_its_way_hands_its_jobs_back(bench: Bench) -> None:
    job_id = await bench.accept()
    worker = bench.build(nothing)
    worker._open()
    claim, asked, go = worker.scripts.claim, asyncio.Event(), asyncio.Event()

    async def slow_claim(*args: Any, **kwargs: Any) -> object:
        asked.set()
        await go.wait()
        return await claim(*args, **kwargs)

    replace(worker.scripts, claim=slow_claim)  # real, but slow
    running = asyncio.ensure_future(worker.async_run())
    await asked.wait()
    closing = asyncio.ensure_future(worker.close())
    await asyncio.wait([running])
    go.set()
    await closing
    assert running.cancelled()
    assert bench.started == []
    assert await bench.attempts(job_id) == 0
    await bench.join("w")
    assert [job.id for job in await bench.claim("w")] == [job_id]


async def test_an_attempt_that_breaks_is_logged_and_repeated(
    bench: Bench, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await bench.accept()
    worker = bench.build(nothing, poll_delay=0.05)
    worker._open()
    rest, broken = worker.emitter.rest, list[str]()

    def break_once(job: Claimed) -> str:
        if not broken:
            broken.append(job.id)
            raise RuntimeError("a fault of ours")
        return rest(job)

    replace(worker.emitter, rest=break_once)  # a fault in our own machinery
    async with bench.run(worker):
        assert await eventually(lambda: ended(bench, [job_id]))
    assert bench.started == [job_id, job_id]
    assert (await bench.record(job_id)).attempts == 2
    assert "a fault of ours" in caplog.text
