"""How much runs at once: jobs in flight in one process and what each costs in memory, and jobs of a whole fleet."""

import asyncio
import time
from contextlib import AsyncExitStack

from benchmarks.client import fill, open_client
from benchmarks.figure import Figure, Goal
from benchmarks.rig import Rig, WorkerProcess
from benchmarks.rounds import alternate
from benchmarks.subject import OURS, Subject

HELD = "120000 note"
"""A job that outlasts its measurement."""
SETTLED_S = 1.5
"""A fleet that has started nothing for this long will start no more."""


async def inflight(rig: Rig) -> list[Figure]:
    jobs = rig.scale.inflight_jobs
    costs = await alternate(1, lambda subject: _kib_per_job(rig, subject))
    name = f"memory per job, {jobs:,} in flight"
    goal = Goal("value", 60)
    return [
        Figure(name=name, subject=ours, unit="KiB", ours=costs[ours], stock=costs[Subject.STOCK], goal=goal)
        for ours in OURS
    ]


async def _kib_per_job(rig: Rig, subject: Subject) -> float:
    await rig.clear()
    jobs = rig.scale.inflight_jobs
    async with open_client(subject, rig.valkey.url()) as client, rig.worker(rig.spec(subject, slots=jobs)) as worker:
        await client.send("0 note", "warm-up")
        await worker.says("start")
        before = worker.memory_bytes()
        await fill(client, [HELD] * jobs)
        await worker.says("start", jobs + 1)
        return (worker.memory_bytes() - before) / jobs / 1024


async def fleet(rig: Rig) -> list[Figure]:
    workers, slots = rig.scale.fleet_workers, rig.scale.fleet_slots
    running = await alternate(1, lambda subject: _running_at_once(rig, subject))
    name = f"jobs running at once, {workers} workers × {slots} slots"
    goal = Goal("value", workers * slots, lower_is_better=False)
    return [
        Figure(name=name, subject=ours, unit="jobs", ours=running[ours], stock=running[Subject.STOCK], goal=goal)
        for ours in OURS
    ]


async def _running_at_once(rig: Rig, subject: Subject) -> float:
    """Twice as many jobs wait as the fleet has slots."""
    await rig.clear()
    slots = rig.scale.fleet_slots
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_client(subject, rig.valkey.url()))
        await fill(client, [HELD] * (2 * slots * rig.scale.fleet_workers))
        fleet = [stack.enter_context(rig.start(rig.spec(subject, slots=slots))) for _ in range(rig.scale.fleet_workers)]
        for worker in fleet:
            await worker.says("ready")
        return float(await _settled(fleet))


async def _settled(fleet: list[WorkerProcess]) -> int:
    """Jobs running once no more are started."""
    running, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < SETTLED_S:
        await asyncio.sleep(0.05)
        if (now := sum(len(worker.said("start")) for worker in fleet)) != running:
            running, since_s = now, time.monotonic()
    return running
