"""Ends of attempts: many in one call, none lost while Redis is away, and a claim only for those who may."""

import asyncio
import signal
from collections.abc import Sequence

import pytest
from redis.exceptions import ResponseError

from ops.stack.directory import DataDirectory
from ops.stack.valkey import start_valkey
from shared.errors import Unavailable
from shared.jobs import JobState
from tests.conftest import PATIENCE_S, Eventually
from tests.queue.harness import QUEUE, Bench
from workers.queue.finisher import Finisher
from workers.queue.scripts import Claimed, Claims, Finish, QueueScripts


class Counted(QueueScripts):
    """The scripts, and how many ends each call to `finish` carried and asked for."""

    def __init__(self, scripts: QueueScripts) -> None:
        self.__dict__.update(scripts.__dict__)
        self.calls: list[tuple[int, int]] = []

    async def finish(self, worker: str, ends: Sequence[Finish], claim_n: int) -> tuple[list[bool], Claims | None]:
        self.calls.append((len(ends), claim_n))
        return await super().finish(worker, ends, claim_n)


def finisher_of(scripts: QueueScripts, *, want: int = 0, patience_s: float = 60) -> tuple[Finisher, list[Claimed]]:
    taken: list[Claimed] = []
    made = Finisher(
        scripts,
        want=lambda _worker, _ending: want,
        take=lambda claims: taken.extend(claims.jobs),
        patience_s=lambda: patience_s,
    )
    return made, taken


async def claimed(bench: Bench, n: int, worker: str = "w") -> list[Claimed]:
    for i in range(n):
        await bench.accept(f"{worker}-{i}")
    await bench.join(worker)
    return await bench.claim(worker)


def end_of(job: Claimed) -> Finish:
    return Finish(job.id, job.claim, "end", fields={"state": "succeeded"})


async def test_attempts_that_end_together_end_in_one_call(bench: Bench) -> None:
    jobs = await claimed(bench, 50)
    scripts = Counted(bench.scripts())
    finisher, _ = finisher_of(scripts)
    verdicts = await asyncio.gather(*(finisher.finish("w", end_of(job)) for job in jobs))
    assert verdicts == [True] * 50
    assert scripts.calls == [(50, 0)]
    assert {(await bench.record(job.id)).state for job in jobs} == {JobState.SUCCEEDED}


async def test_a_small_batch_brings_the_next_jobs_a_large_one_does_not(bench: Bench) -> None:
    jobs = await claimed(bench, 30)
    waiting = [await bench.accept(f"next-{n}") for n in range(3)]
    scripts = Counted(bench.scripts())
    finisher, taken = finisher_of(scripts, want=2)
    await asyncio.gather(*(finisher.finish("w", end_of(job)) for job in jobs[:29]))
    assert taken == []
    await finisher.finish("w", end_of(jobs[29]))
    assert [job.id for job in taken] == waiting[:2]
    assert scripts.calls == [(29, 0), (1, 2)]


async def test_every_end_goes_under_the_name_it_was_claimed_under(bench: Bench) -> None:
    (old,), (new,) = await claimed(bench, 1, "old"), await claimed(bench, 1, "new")
    await bench.kill("old")
    await bench.join("other")
    await bench.claim("other")
    finisher, _ = finisher_of(bench.scripts())
    ends = [("old", end_of(old)), ("new", end_of(new))]
    assert await asyncio.gather(*(finisher.finish(*end) for end in ends)) == [False, True]
    assert (await bench.record(old.id)).state == JobState.RUNNING, "it runs elsewhere"


async def test_ends_wait_out_an_outage(private_directory: DataDirectory, eventually: Eventually) -> None:
    durable = {"appendfsync": "always"}
    server = start_valkey(private_directory, settings=durable)
    async with Bench.open(server.url()) as bench:
        jobs = await claimed(bench, 3)
        finisher, _ = finisher_of(bench.scripts())
        server.child.signal(signal.SIGKILL)
        await asyncio.to_thread(server.child.join, PATIENCE_S)
        ends = asyncio.gather(*(finisher.finish("w", end_of(job)) for job in jobs))
        server = await asyncio.to_thread(start_valkey, private_directory, port=server.port, settings=durable)
        assert await asyncio.wait_for(ends, PATIENCE_S) == [True] * 3
        assert {(await bench.record(job.id)).state for job in jobs} == {JobState.SUCCEEDED}
    server.child.stop()


async def test_a_worker_that_leaves_does_not_wait_for_ever(private_directory: DataDirectory) -> None:
    server = start_valkey(private_directory)
    async with Bench.open(server.url()) as bench:
        cut_off = asyncio.Event()

        async def cut_the_line(_job: Claimed) -> None:
            await asyncio.to_thread(server.child.stop)
            cut_off.set()

        worker = bench.build(cut_the_line, lease_s=1.0)
        running = asyncio.ensure_future(worker.async_run())
        await bench.accept()
        await cut_off.wait()
        await asyncio.wait_for(worker.close(), PATIENCE_S)
        await asyncio.wait([running])
        with pytest.raises(Unavailable):
            await bench.commands.run("PING")


async def test_what_the_server_refuses_fails_its_attempt_and_nothing_hangs(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    await bench.redis.delete(f"{QUEUE}:held:w")
    await bench.redis.set(f"{QUEUE}:held:w", "not a hash")
    finisher, _ = finisher_of(bench.scripts())
    with pytest.raises(ResponseError):
        await asyncio.wait_for(finisher.finish("w", end_of(job)), PATIENCE_S)
    await asyncio.wait_for(finisher.settled(), PATIENCE_S)
