"""The worker around the attempts: hooks, drain, cancellation, refusals, and what it leaves in Redis and in the log."""

import asyncio
import inspect
import logging
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.worker import Retry, Worker, get_kwargs

from shared.jobs import JobState
from shared.wire import TURN_FUNCTION
from tests.conftest import PATIENCE_S, Eventually
from tests.queue.harness import QUEUE, TENANT, Bench, nothing, replace
from workers.queue import codec
from workers.queue.scripts import Claimed
from workers.queue.verdicts import Ended
from workers.queue.worker import LeaseWorker


async def ended(bench: Bench, *job_ids: str) -> bool:
    return all([(await bench.record(job_id)).state.ended for job_id in job_ids])


async def test_the_last_hook_hears_of_jobs_that_could_not_be_run(bench: Bench) -> None:
    heard: dict[str, Any] = {}
    done = asyncio.Event()

    async def after(ctx: dict[Any, Any]) -> None:
        heard[ctx["job_id"]] = (ctx["job_try"], str(ctx.get("refusal")))
        if len(heard) == 3:
            done.set()

    async def never(_ctx: dict[Any, Any]) -> None:
        raise AssertionError("it never started")

    client = ArqRedis(bench.redis.connection_pool, job_serializer=codec.encode, job_deserializer=codec.decode)
    await client.enqueue_job("unknown", _job_id="unknown")
    await bench.redis.zadd(QUEUE, {"expired": 1})
    await client.enqueue_job("turn", _job_id="unreadable")
    await bench.redis.set("arq:job:unreadable", b"not what arq writes")
    async with bench.worker(nothing, on_job_start=never, on_job_end=never, after_job_end=after):
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    assert heard["unknown"] == (1, "function 'unknown' not found")
    assert heard["expired"] == (1, "job expired")
    assert "unable to deserialize" in heard["unreadable"][1]


async def test_a_hook_that_fails_costs_nobody_a_job(
    bench: Bench, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    async def on_start(_ctx: object) -> None:
        called.append("start")
        raise RuntimeError("a hook's fault")

    async def on_end(_ctx: object) -> None:
        called.append("end")
        raise RuntimeError("a hook's fault")

    async def after(_ctx: object) -> None:
        called.append("after")
        raise RuntimeError("a hook's fault")

    async with bench.worker(nothing, on_job_start=on_start, on_job_end=on_end, after_job_end=after):
        ids = [await bench.accept(f"c{n}") for n in range(2)]
        assert await eventually(lambda: ended(bench, *ids))
        assert await eventually(lambda: len(called) == 6)
    assert sorted(called) == sorted(["start", "end", "after"] * 2)
    assert caplog.text.count("a hook's fault") >= 6


async def test_a_drained_worker_hands_its_jobs_back_uncounted_and_at_their_places(
    bench: Bench, eventually: Eventually
) -> None:
    async def hang(_job: Claimed) -> None:
        await asyncio.Event().wait()

    ids = [await bench.accept(f"c{n}") for n in range(3)]
    async with bench.worker(hang, max_jobs=2):
        assert await eventually(lambda: bench.started == ids[:2])
    assert [await bench.attempts(job_id) for job_id in ids] == [0, 0, 0]
    await bench.join("w")
    assert [job.id for job in await bench.claim("w")] == ids
    assert await bench.redis.zrange(f"{QUEUE}:leases", 0, -1) == [b"w"]


async def test_a_cancelled_job_is_stopped_where_it_runs(bench: Bench, eventually: Eventually) -> None:
    async def until_cancelled(job: Claimed) -> object:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert job.cancelled
            return Ended({"state": "cancelled"})
        return None

    async with bench.worker(until_cancelled, lease_s=2.0):
        job_id = await bench.accept()
        follower = await bench.accept()
        assert await eventually(lambda: bench.started == [job_id])
        assert await bench.intake.cancel(TENANT, job_id) == "requested"
        assert await eventually(lambda: bench.started == [job_id, follower])
        assert (await bench.record(job_id)).state == JobState.CANCELLED
        assert await bench.intake.cancel(TENANT, follower) == "requested"
        assert await eventually(lambda: ended(bench, follower))


async def test_an_end_under_way_is_told_whatever_stops_the_worker_meanwhile(
    bench: Bench, eventually: Eventually
) -> None:
    worker = bench.build(nothing)
    worker._open()
    concluding, said = asyncio.Event(), asyncio.get_running_loop().create_future()

    def under_way(_job: Claimed) -> "asyncio.Future[None]":
        concluding.set()
        return said

    replace(worker.emitter, under_way=under_way)  # the end takes its time
    running = asyncio.ensure_future(worker.async_run())
    job_id = await bench.accept()
    await concluding.wait()
    closing = asyncio.ensure_future(worker.close())
    await asyncio.wait([running])
    said.set_result(None)
    await closing
    assert (await bench.record(job_id)).state == JobState.SUCCEEDED
    assert bench.started == [job_id]


async def test_a_job_that_cannot_be_run_is_ended_by_its_owner(bench: Bench, eventually: Eventually) -> None:
    reasons: list[str] = []

    async def end(_job: Claimed, reason: str) -> Ended:
        reasons.append(reason)
        return Ended({"state": "dead"})

    unreadable, payless = await bench.accept("c1"), await bench.accept("c2")
    await bench.redis.set(f"arq:job:{unreadable}", b"\x80 not JSON")
    await bench.redis.delete(f"arq:job:{payless}")
    async with bench.worker(nothing, unrunnable=end):
        assert await eventually(lambda: ended(bench, unreadable, payless))
    assert sorted(reasons) == ["job expired", "unable to deserialize job"]
    assert bench.started == []


async def test_message_text_is_not_logged(
    bench: Bench, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="arq.worker")
    async with bench.worker(nothing, log_args=False, log_results=False):
        job_id = await bench.accept()
        assert await eventually(lambda: ended(bench, job_id))
    assert f"{job_id}:{TURN_FUNCTION}()" in caplog.text
    assert "hello" not in caplog.text


async def test_a_burst_leaves_nothing_but_results_and_no_attempt_counters(bench: Bench) -> None:
    async def once_more(job: Claimed) -> None:
        if job.attempt == 1:
            raise Retry(defer=0.01)

    ids = [await bench.accept(f"c{n}") for n in range(3)]
    worker = bench.build(once_more, burst=True, poll_delay=0.01)
    await worker.async_run()
    await worker.close()
    assert sorted(bench.started) == sorted(ids * 2)
    left = {key.decode() for key in await bench.redis.keys("*")}
    ours = ("sb:job:", "sb:events:", f"{QUEUE}:wake")
    assert {name for name in left if not name.startswith(ours)} == set()


def test_arqs_command_line_finds_its_own_settings_and_ours() -> None:
    settings = set(inspect.signature(LeaseWorker).parameters)
    assert settings > set(inspect.signature(Worker).parameters)
    assert {"lease_s", "log_args", "unrunnable"} <= settings
    assert "arq" not in settings
    assert set(get_kwargs({"burst": True, "unknown": 1})) == {"burst"}
