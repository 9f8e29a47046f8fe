"""Fairness: how soon the one job of a small tenant starts while another tenant has thousands queued.

The same worker, slots full of jobs of 1 to 99 ms; the peer is the same job on the same worker with nothing else to do.
"""

import asyncio
import random
import time

from benchmarks.client import Client, fill, open_client
from benchmarks.figure import Figure, Goal
from benchmarks.pickup import percentile
from benchmarks.rig import Rig, WorkerProcess
from benchmarks.scale import QUICK
from benchmarks.subject import Subject

SLOTS = 50
LONGEST_MS = 99
PAUSE_S = 0.02
"""Longest pause between two jobs of the small tenant, so that all of them fall into the big one's backlog."""


async def fairness(rig: Rig) -> list[Figure]:
    alone, beside = [], []
    for _ in range(rig.scale.rounds):
        alone.append(await _measure(rig, backlog=0))
        beside.append(await _measure(rig, backlog=rig.scale.backlog_jobs))
    return [
        Figure(
            name="one job beside a big tenant's backlog, p99",
            subject=Subject.TURNS,
            unit="ms",
            ours=beside,
            stock=alone,
            goal=Goal("ratio", 3),
            note=f"another tenant has {rig.scale.backlog_jobs:,} jobs of 1 to {LONGEST_MS} ms queued for {SLOTS} slots,"
            " all of them busy; instead of stock arq the peer is the same job on the same worker, idle",
        )
    ]


async def _measure(rig: Rig, backlog: int) -> float:
    """p99 in ms from the acceptance of a small tenant's job to its first line."""
    await rig.clear()
    url = rig.valkey.url()
    async with open_client(Subject.TURNS, url, tenant="big") as big, open_client(Subject.TURNS, url) as small:
        await fill(big, [f"{random.randint(1, LONGEST_MS)} quiet" for _ in range(backlog)])  # noqa: S311
        async with rig.worker(rig.spec(Subject.TURNS, slots=SLOTS)) as worker:
            await _pick_up(worker, small, 1)  # connections and scripts are there
            found = [await _pick_up(worker, small, number) for number in range(2, rig.scale.pickups + 2)]
            left = await rig.queued()
    assert left or not backlog or rig.scale is QUICK, "the backlog was gone too soon"
    return percentile(found, 0.99)


async def _pick_up(worker: WorkerProcess, client: Client, number: int) -> float:
    await asyncio.sleep(random.uniform(0, PAUSE_S))  # noqa: S311 - out of step with the jobs that end
    sent_ns = time.monotonic_ns()
    job_id = await client.send("0 note", f"s{number}")
    start = (await worker.says("start", number))[-1]
    assert start[2] == job_id, "a job was started that was not sent"
    return (int(start[1]) - sent_ns) / 1e6
