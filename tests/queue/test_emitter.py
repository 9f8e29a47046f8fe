"""Text on its way to readers: in order, soon, seldom, and never into another worker's attempt."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from redis.exceptions import ResponseError

from shared.scripts import read_events
from tests.conftest import Eventually
from tests.queue.harness import Bench, replace
from workers.queue import emitter as module
from workers.queue.emitter import INTERVAL_S, Emitter
from workers.queue.scripts import Claimed, QueueScripts


class Watched(QueueScripts):
    """The scripts, and how much each call to `emit` carried."""

    def __init__(self, scripts: QueueScripts) -> None:
        self.__dict__.update(scripts.__dict__)
        self.calls: list[int] = []

    async def emit(self, worker: str, events: Sequence[tuple[str, str, str, str]]) -> set[str]:
        self.calls.append(len(events))
        return await super().emit(worker, events)


async def claimed(bench: Bench, n: int) -> list[Claimed]:
    for i in range(n):
        await bench.accept(f"c{i}")
    await bench.join("w")
    return await bench.claim("w")


async def sent(emitter: Emitter, *jobs: Claimed) -> None:
    """Returns when Redis has answered all that was sent of what they said."""
    for job in jobs:
        if (call := emitter.under_way(job)) is not None:
            await asyncio.wait([call])


async def shown(bench: Bench, job: Claimed) -> list[str]:
    events = await bench.redis.xrange(f"sb:events:{job.id}")
    return [msgspec.json.decode(e[b"d"])["delta"] for _, e in events if e[b"t"] == b"message.delta"]


async def test_the_first_piece_leaves_at_once_and_the_rest_in_order_and_together(
    bench: Bench, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 60.0)
    (job,) = await claimed(bench, 1)
    scripts = Watched(bench.scripts())
    emitter = Emitter(scripts)
    pieces = [f"{n} " for n in range(200)]
    for piece in pieces:
        emitter.text(job, piece)
        await asyncio.sleep(0)
    assert await eventually(lambda: len(scripts.calls) == 1), "the first, without a minute's wait"
    await sent(emitter, job)
    assert await bench.finish(job, "end", text=emitter.rest(job))
    said = await shown(bench, job)
    assert "".join(said) == "".join(pieces)
    assert said[0].startswith("0 ")
    assert len(said) == 2
    assert scripts.calls == [1]


async def test_calls_keep_their_distance_however_many_jobs_speak(bench: Bench) -> None:
    jobs = await claimed(bench, 20)
    scripts = Watched(bench.scripts())
    emitter, sent_at = Emitter(scripts), list[float]()
    start = emitter._start

    def noted() -> None:
        start()
        sent_at.append(emitter._sent_at)

    replace(emitter, _start=noted)
    loop = asyncio.get_running_loop()
    until = loop.time() + 4.5 * INTERVAL_S
    while loop.time() < until:
        for job in jobs:
            emitter.text(job, "x")
        await bench.redis.ping()
    assert len(scripts.calls) <= len(sent_at) <= 6
    assert min(later - earlier for earlier, later in pairwise(sent_at)) > INTERVAL_S * 0.99
    assert scripts.calls[1] == 20
    await sent(emitter, *jobs)


async def test_pieces_do_not_overtake_each_other(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    scripts, go = Watched(bench.scripts()), asyncio.Event()
    emit, held_up = scripts.emit, asyncio.Event()

    async def slow_first(worker: str, events: Sequence[tuple[str, str, str, str]]) -> set[str]:
        if not held_up.is_set():
            held_up.set()
            await go.wait()
        return await emit(worker, events)

    replace(scripts, emit=slow_first)  # real, but slow once
    emitter = Emitter(scripts)
    emitter.text(job, "first ")
    await held_up.wait()
    emitter.text(job, "second")
    taking_back = asyncio.ensure_future(emitter.take_back(job))  # which sends the second at once
    await bench.redis.ping()
    await bench.redis.ping()
    go.set()
    await taking_back
    assert await shown(bench, job) == ["first ", "second"]


async def test_an_attempt_that_was_taken_over_learns_it_and_its_text_is_not_shown(
    bench: Bench, eventually: Eventually
) -> None:
    (job,) = await claimed(bench, 1)
    await bench.kill("w")
    await bench.join("other")
    (again,) = await bench.claim("other")
    emitter = Emitter(bench.scripts())
    emitter.text(job, "stale")
    assert await eventually(lambda: job.lost)
    assert not again.lost
    assert not await bench.finish(job, "end", text="stale too")
    assert await shown(bench, job) == []


async def test_a_new_attempt_starts_the_text_anew_for_its_readers(bench: Bench, eventually: Eventually) -> None:
    (job,) = await claimed(bench, 1)
    emitter = Emitter(bench.scripts())
    emitter.text(job, "half a rep")
    assert await eventually(lambda: bench.redis.exists(f"sb:events:{job.id}"))
    await bench.kill("w")
    await bench.join("other")
    (again,) = await bench.claim("other")
    emitter.text(again, "whole reply")
    assert await bench.finish(again, "end", text=emitter.rest(again))
    newest, events = await read_events(bench.commands, job.id)
    assert [event.seq for event in events] == list(range(1, newest + 1))
    assert [event.type for event in events] == [
        "job.started",
        "message.delta",
        "attempt.reset",
        "job.started",
        "message.delta",
        "job.ended",
    ]


async def test_an_attempt_that_is_repeated_has_shown_its_last_words(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    assert await bench.finish(job, "retry", text="half a rep")
    _, events = await read_events(bench.commands, job.id)
    assert [(event.seq, event.type) for event in events] == [
        (1, "job.started"),
        (2, "message.delta"),
        (3, "job.retrying"),
    ]


async def test_an_end_takes_the_rest_along_after_what_is_under_way(bench: Bench, eventually: Eventually) -> None:
    said, go, emit, calls = asyncio.Event(), asyncio.Event(), QueueScripts.emit, list[int]()

    async def turn(job: Claimed) -> None:
        worker.emitter.text(job, "first ")
        await said.wait()
        worker.emitter.text(job, "second")

    async def slow(worker: str, events: Sequence[tuple[str, str, str, str]]) -> set[str]:
        calls.append(len(events))
        said.set()
        await go.wait()
        return await emit(scripts, worker, events)

    worker = bench.build(turn)
    worker._open()
    scripts = worker.scripts
    replace(scripts, emit=slow)
    async with bench.run(worker):
        job_id = await bench.accept()
        await said.wait()
        assert await eventually(lambda: worker.jobs_complete == 1)
        await bench.redis.ping()
        assert not (await bench.record(job_id)).state.ended
        worker.emitter._start()  # as its timer would: the rest is the end's by now
        go.set()
        assert await eventually(lambda: over(bench, job_id))
    _, events = await read_events(bench.commands, job_id)
    assert [event.type for event in events] == ["job.started", "message.delta", "message.delta", "job.ended"]
    assert calls == [1]


async def test_text_that_redis_refuses_is_reported_and_holds_up_no_end(
    bench: Bench, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    async def turn(job: Claimed) -> None:
        worker.emitter.text(job, "hello")
        await eventually(lambda: "text of 1 jobs not shown: wrong command" in caplog.text)

    async def refused(_worker: str, _events: Sequence[tuple[str, str, str, str]]) -> set[str]:
        raise ResponseError("wrong command")

    worker = bench.build(turn)
    worker._open()
    replace(worker.scripts, emit=refused)
    async with bench.run(worker):
        job_id = await bench.accept()
        assert await eventually(lambda: over(bench, job_id))
    assert worker.jobs_complete == 1


async def over(bench: Bench, job_id: str) -> bool:
    return (await bench.record(job_id)).state.ended


async def test_claims_of_one_job_in_one_process_do_not_speak_for_each_other(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    emitter = Emitter(bench.scripts())
    emitter.text(job, "old")
    await bench.kill("w")
    await bench.join("w again")
    (again,) = await bench.claim("w again")
    job.lost = True
    emitter.text(again, "new ")
    emitter.text(job, "older")
    emitter.text(again, "text")
    assert emitter.rest(job) == ""
    assert emitter.rest(again) == "new text"


async def test_a_job_that_said_nothing_has_nothing_to_wait_for(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    emitter = Emitter(bench.scripts())
    assert emitter.under_way(job) is None
    assert emitter.rest(job) == ""
