"""Idle pick-up: from the call that accepts a job to the job's first line, in a worker that has nothing else to do."""

import asyncio
import random
import statistics
import time
from dataclasses import dataclass

from benchmarks.client import Client, open_client
from benchmarks.figure import Figure, Goal
from benchmarks.rig import Rig, WorkerProcess
from benchmarks.rounds import alternate
from benchmarks.subject import OURS, Subject
from workers.queue.start import POLL_S

STOCK_FAST_POLL_S = 0.01
LONGEST_POLL_S = POLL_S
"""Jobs come at any moment of it: sent soon after a pick-up, each would wait for almost a whole pause of a poller."""


@dataclass(frozen=True)
class Pickup:
    p50_ms: float
    p99_ms: float
    idle_cpu_percent: float


async def idle_pickup(rig: Rig) -> list[Figure]:
    rounds = max(1, rig.scale.rounds // 2)
    default = await alternate(rounds, lambda subject: _measure(rig, subject, poll_s=0.5))
    fast = await alternate(rounds, lambda subject: _measure(rig, subject, STOCK_FAST_POLL_S), [Subject.STOCK])
    stock, polling = default[Subject.STOCK], fast[Subject.STOCK]
    note = (
        f"stock arq at {STOCK_FAST_POLL_S * 1000:.0f} ms polling: p50 {_median(polling, 'p50_ms'):.3g} ms, "
        f"p99 {_median(polling, 'p99_ms'):.3g} ms, {_median(polling, 'idle_cpu_percent'):.2g} % of a core when idle"
    )
    figures = []
    for ours in OURS:
        for name, goal in (("p50_ms", Goal("value", 1.5)), ("p99_ms", Goal("value", 5))):
            figures.append(_figure(f"idle pick-up, {name[:3]}", "ms", name, ours, default[ours], stock, goal))
    name, goal = "worker when idle", Goal("value", 0.5)
    cpu = _figure(name, "% of a core", "idle_cpu_percent", Subject.TURNS, default[Subject.TURNS], stock, goal, note)
    return [*figures, cpu]


async def _measure(rig: Rig, subject: Subject, poll_s: float) -> Pickup:
    await rig.clear()
    async with rig.worker(rig.spec(subject, poll_s=poll_s)) as worker, open_client(subject, rig.valkey.url()) as client:
        await _pick_up(worker, client, 1)  # connections and scripts are there
        latencies = [await _pick_up(worker, client, number) for number in range(2, rig.scale.pickups + 2)]
        cpu_s, since_s = worker.cpu_s(), time.monotonic()
        await asyncio.sleep(rig.scale.idle_s)
        idle_share = (worker.cpu_s() - cpu_s) / (time.monotonic() - since_s)
    return Pickup(statistics.median(latencies), percentile(latencies, 0.99), idle_share * 100)


async def _pick_up(worker: WorkerProcess, client: Client, number: int) -> float:
    """ms until the `number`th job of this worker starts."""
    await asyncio.sleep(random.uniform(0, LONGEST_POLL_S))  # noqa: S311 - out of step with anybody's polling
    sent_ns = time.monotonic_ns()
    job_id = await client.send("0 note", f"c{number}")
    start = (await worker.says("start", number))[-1]
    assert start[2] == job_id, "a job was started that was not sent"
    return (int(start[1]) - sent_ns) / 1e6


def percentile(samples: list[float], share: float) -> float:
    """The smallest sample that `share` of all samples do not exceed."""
    return sorted(samples)[max(0, -int(-share * len(samples) // 1) - 1)]


def _median(pickups: list[Pickup], attribute: str) -> float:
    return float(statistics.median(getattr(one, attribute) for one in pickups))


def _figure(
    name: str,
    unit: str,
    attribute: str,
    subject: Subject,
    ours: list[Pickup],
    stock: list[Pickup],
    goal: Goal,
    note: str = "",
) -> Figure:
    return Figure(
        name=name,
        subject=subject,
        unit=unit,
        ours=[getattr(one, attribute) for one in ours],
        stock=[getattr(one, attribute) for one in stock],
        goal=goal,
        note=note,
    )
