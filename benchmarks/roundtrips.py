"""Round trips: what a client sends to accept a job, and what a worker sends to run one, polls and wake-ups included.

One send is one round trip. A worker's lease thread has a connection of its own, which is not counted: one beat per
quarter of the lease, whatever the worker runs.
"""

import random
from collections.abc import Sequence

from benchmarks.client import fill, open_client
from benchmarks.figure import Figure, Goal
from benchmarks.rig import Rig
from benchmarks.rounds import EVERY
from benchmarks.subject import OURS, CountingConnection, Subject

Counts = dict[Subject, float]


async def roundtrips(rig: Rig) -> list[Figure]:
    jobs = rig.scale.trip_jobs
    noop = ["0 quiet"] * jobs
    random_ms = [f"{random.randint(10, 100)} quiet" for _ in range(jobs)]  # noqa: S311 - a load, not a secret
    accept = {subject: await _accept(rig, subject) for subject in (Subject.STOCK, Subject.TURNS)}
    full = {subject: await _run(rig, subject, noop, slots=1_000) for subject in EVERY}
    steady = {subject: await _run(rig, subject, random_ms, slots=10) for subject in EVERY}
    single = {subject: await _run(rig, subject, noop, slots=1) for subject in EVERY}
    return [
        _figure("accept a job", Subject.TURNS, {s: trips for s, (trips, _) in accept.items()}, Goal("value", 1)),
        _figure("accept a job, in the server", Subject.TURNS, {s: n for s, (_, n) in accept.items()}, unit="commands"),
        *_figures("no-op job, 1,000 slots", {s: trips for s, (trips, _) in full.items()}, Goal("value", 1.2)),
        *_figures("no-op job, in the server", {s: n for s, (_, n) in full.items()}, unit="commands"),
        *_figures("10–100 ms job, 10 slots", {s: trips for s, (trips, _) in steady.items()}, Goal("value", 1.2)),
        *_figures("no-op job, 1 slot", {s: trips for s, (trips, _) in single.items()}, Goal("value", 1.2)),
    ]


async def _accept(rig: Rig, subject: Subject) -> tuple[float, float]:
    """Sends and server commands per job, accepted one after the other."""
    await rig.clear()
    jobs = rig.scale.trip_jobs
    async with open_client(subject, rig.valkey.url()) as client:
        await client.send("0 quiet", "warm-up")  # connection and script are there
        sends, commands = CountingConnection.sends, await rig.server_commands()
        for number in range(jobs):
            await client.send("0 quiet", f"c{number}")
        sends = CountingConnection.sends - sends
        return sends / jobs, (await rig.server_commands() - commands) / jobs


async def _run(rig: Rig, subject: Subject, messages: Sequence[str], *, slots: int) -> tuple[float, float]:
    """Sends of the worker process and server commands, per job of a backlog."""
    await rig.clear()
    async with open_client(subject, rig.valkey.url()) as client:
        await fill(client, messages)
    commands = await rig.server_commands()
    with rig.start(rig.spec(subject, slots=slots, poll_s=0.01)) as worker:
        await worker.says("first")
        await rig.drained()
        commands = await rig.server_commands() - commands
        left = await worker.leave()
    assert left.jobs == len(messages), f"{left.jobs} of {len(messages)} jobs were run"
    return left.sends / left.jobs, commands / left.jobs


def _figures(name: str, counts: Counts, goal: Goal | None = None, unit: str = "round trips") -> list[Figure]:
    return [_figure(name, ours, counts, goal, unit) for ours in OURS]


def _figure(name: str, ours: Subject, counts: Counts, goal: Goal | None = None, unit: str = "round trips") -> Figure:
    return Figure(name=name, subject=ours, unit=unit, ours=[counts[ours]], stock=[counts[Subject.STOCK]], goal=goal)
