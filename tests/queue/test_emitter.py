"""Text on its way to readers: in order, soon, seldom, and never into another worker's attempt."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest

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
    await emitter.flush(job)
    said = await shown(bench, job)
    assert "".join(said) == "".join(pieces)
    assert said[0].startswith("0 ")
    assert len(said) == len(scripts.calls) == 2


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
    for job in jobs:
        await emitter.flush(job)


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
    flushing = asyncio.ensure_future(emitter.flush(job))
    await bench.redis.ping()
    await bench.redis.ping()
    go.set()
    await flushing
    assert await shown(bench, job) == ["first ", "second"]


async def test_an_attempt_that_was_taken_over_learns_it_and_its_text_is_not_shown(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    await bench.kill("w")
    await bench.join("other")
    (again,) = await bench.claim("other")
    emitter = Emitter(bench.scripts())
    emitter.text(job, "stale")
    await emitter.flush(job)
    assert job.lost
    assert not again.lost
    assert await shown(bench, job) == []


async def test_a_new_attempt_starts_the_text_anew_for_its_readers(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    emitter = Emitter(bench.scripts())
    emitter.text(job, "half a rep")
    await emitter.flush(job)
    await bench.kill("w")
    await bench.join("other")
    (again,) = await bench.claim("other")
    emitter.text(again, "whole reply")
    await emitter.flush(again)
    newest, events = await read_events(bench.commands, job.id)
    assert [event.seq for event in events] == list(range(1, newest + 1))
    assert [event.type for event in events] == [
        "job.started",
        "message.delta",
        "attempt.reset",
        "job.started",
        "message.delta",
    ]


async def test_flushing_a_job_that_said_nothing_asks_nothing(bench: Bench) -> None:
    (job,) = await claimed(bench, 1)
    scripts = Watched(bench.scripts())
    await Emitter(scripts).flush(job)
    assert scripts.calls == []
