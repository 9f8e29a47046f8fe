"""What becomes of the jobs of a worker that goes: killed without a word, or asked to end.

One worker's slots are full of jobs, another one is idle; the first gets the signal, and the clock runs until the last
of its jobs has started on the second (or has ended, when it is given time to).
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGKILL, SIGTERM, Signals

from benchmarks.capacity import HELD
from benchmarks.client import fill, open_client
from benchmarks.figure import Figure, Goal
from benchmarks.rig import Rig
from benchmarks.rounds import alternate
from benchmarks.subject import Subject, WorkerSpec

DEFAULT_LEASE_S = 4.0
TUNED_LEASE_S = 1.5
STOCK_TUNED_TIMEOUT_S = 10.0
"""The longest job stock arq may then run: its locks live 10 s longer."""
SHORT_MS = 400
WHO = (Subject.STOCK, Subject.TURNS)


@dataclass(frozen=True)
class Handover:
    seconds: float
    tries: int
    """The most tries any of the jobs was at when it started again."""


async def sigkill(rig: Rig) -> list[Figure]:
    return [
        await _sigkill(rig, "default", DEFAULT_LEASE_S, 300.0, Goal("value", 5)),
        await _sigkill(rig, "tuned", TUNED_LEASE_S, STOCK_TUNED_TIMEOUT_S, Goal("value", 2)),
    ]


async def _sigkill(rig: Rig, how: str, lease_s: float, stock_timeout_s: float, goal: Goal) -> Figure:
    """Stock arq's default is read from its locks: nobody waits five minutes for it."""
    waited = rig.scale.wait_for_stock and stock_timeout_s < 60

    async def measure(subject: Subject) -> float:
        options = {"lease_s": lease_s, "job_timeout_s": stock_timeout_s}
        if subject is Subject.STOCK and not waited:
            return await _locked_for_s(rig, rig.spec(subject, slots=rig.scale.held_jobs, **options))
        return (await _handover(rig, subject, SIGKILL, **options)).seconds

    samples = await alternate(max(1, rig.scale.rounds // 2), measure, WHO)
    stock = f"a job timeout of {stock_timeout_s:.0f} s" + ("" if waited else ", read from its locks, not waited for")
    return Figure(
        name=f"SIGKILL, until its {rig.scale.held_jobs} jobs run elsewhere, {how}",
        subject=Subject.TURNS,
        unit="s",
        ours=samples[Subject.TURNS],
        stock=samples[Subject.STOCK],
        goal=goal,
        note=f"ours with a lease of {lease_s:g} s, stock arq with {stock}",
    )


async def sigterm(rig: Rig) -> list[Figure]:
    rounds = max(1, rig.scale.rounds // 2)
    moved = await alternate(rounds, lambda subject: _handover(rig, subject, SIGTERM), WHO)
    finished = await alternate(rounds, lambda subject: _left_over(rig, subject), WHO)
    jobs = rig.scale.held_jobs

    def figure(name: str, unit: str, samples: Callable[[Subject], list[float]], goal: Goal) -> Figure:
        ours, stock = samples(Subject.TURNS), samples(Subject.STOCK)
        return Figure(name=name, subject=Subject.TURNS, unit=unit, ours=ours, stock=stock, goal=goal)

    return [
        figure(
            f"SIGTERM without grace, until its {jobs} jobs run elsewhere",
            "s",
            lambda subject: [one.seconds for one in moved[subject]],
            Goal("value", 0.5),
        ),
        figure(
            "… the try they are at then", "tries", lambda s: [float(one.tries) for one in moved[s]], Goal("value", 1)
        ),
        figure(
            f"SIGTERM with grace, jobs of {SHORT_MS} ms left unfinished",
            "jobs",
            lambda subject: [float(left) for left in finished[subject]],
            Goal("value", 0),
        ),
    ]


async def _handover(rig: Rig, subject: Subject, signal: Signals, **options: float) -> Handover:
    jobs = rig.scale.held_jobs
    spec = rig.spec(subject, slots=jobs, **options)
    await rig.clear()
    async with open_client(subject, rig.valkey.url()) as client, rig.worker(spec) as full:
        held = set(await fill(client, [HELD] * jobs))
        await full.says("start", jobs)
        async with rig.worker(spec) as idle:
            await client.send("0 note", "warm-up")  # the full one has no slot for it
            await idle.says("start")
            await asyncio.sleep(random.uniform(0, spec.lease_s / 4))  # noqa: S311 - anywhere between two beats
            sent_ns = time.monotonic_ns()
            full.child.signal(signal)
            again = (await idle.says("start", 1 + jobs, timeout_s=600.0))[1:]
    assert {job_id for _, _, job_id, _ in again} == held, "other jobs were started than the ones held"
    return Handover((max(int(ns) for _, ns, _, _ in again) - sent_ns) / 1e9, max(int(tries) for *_, tries in again))


async def _locked_for_s(rig: Rig, spec: WorkerSpec) -> float:
    """How long the locks of a killed stock worker live on: only then are its jobs looked at again."""
    await rig.clear()
    async with open_client(spec.subject, rig.valkey.url()) as client, rig.worker(spec) as full:
        held = await fill(client, [HELD] * spec.slots)
        await full.says("start", spec.slots)
        full.child.signal(SIGKILL)
        locks_ms = [await rig.redis.pttl(f"arq:in-progress:{job_id}") for job_id in held]
    return float(max(locks_ms)) / 1000


async def _left_over(rig: Rig, subject: Subject) -> int:
    """Jobs a worker leaves unfinished that was given time to finish them."""
    jobs = rig.scale.held_jobs
    await rig.clear()
    async with open_client(subject, rig.valkey.url()) as client:
        await fill(client, [f"{SHORT_MS} note"] * jobs)
        async with rig.worker(rig.spec(subject, slots=jobs, grace_s=20)) as worker:
            await worker.says("start", jobs)
            completed = (await worker.leave()).jobs
    left_over = await rig.queued()
    assert completed + left_over == jobs, f"{completed} jobs ended, {left_over} are left, {jobs} were accepted"
    return left_over
