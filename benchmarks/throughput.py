"""Jobs a second of one worker process: a backlog is made first, then the worker starts and drains it.

The clock runs from the first job's first line to the moment the queue is empty; the worker's start is not in it.
"""

from dataclasses import dataclass

from benchmarks.client import fill, open_client
from benchmarks.figure import Figure, Goal
from benchmarks.rig import Rig
from benchmarks.rounds import alternate
from benchmarks.subject import OURS, Subject

SLOTS = 1_000
CONVERSATION_JOBS = 10
"""A tenth of the turns can run at once: order is not only switched on, it is used."""
STOCK_POLL_S = 0.01
"""Kinder to stock arq than its default."""


@dataclass(frozen=True)
class Drain:
    jobs_per_s: float
    worker_us: float
    """CPU time of the worker process per job."""
    server_us: float
    """CPU time of Valkey per job."""


async def noop(rig: Rig) -> list[Figure]:
    drains = await alternate(rig.scale.rounds, lambda subject: drain(rig, subject, "0 quiet"))
    goal = Goal("ratio", 7, lower_is_better=False)
    return [*_figures("no-op jobs", drains, goal), *_cpu_figures(drains)]


async def sleep50(rig: Rig) -> list[Figure]:
    async def measure(subject: Subject) -> Drain:
        return await drain(rig, subject, "50 quiet", conversation_jobs=1)

    drains = await alternate(rig.scale.rounds, measure)
    return _figures(f"50 ms jobs, {SLOTS:,} in flight", drains, Goal("ratio", 6, lower_is_better=False))


async def drain(
    rig: Rig, subject: Subject, message: str, *, conversation_jobs: int = CONVERSATION_JOBS, profile: str = ""
) -> Drain:
    jobs = rig.scale.backlog_jobs
    await rig.clear()
    async with open_client(subject, rig.valkey.url()) as client:
        await fill(client, [message] * jobs, conversation_jobs=conversation_jobs)
    server_s = await rig.server_cpu_s()
    with rig.start(rig.spec(subject, slots=SLOTS, poll_s=STOCK_POLL_S, profile=profile)) as worker:
        (first,) = await worker.says("first")
        last_ns = await rig.drained()
        server_s = await rig.server_cpu_s() - server_s
        left = await worker.leave()
    assert left.jobs == jobs, f"{left.jobs} of {jobs} jobs were run"
    return Drain(jobs / (last_ns - int(first[1])) * 1e9, left.cpu_ns / jobs / 1e3, server_s / jobs * 1e6)


def _figures(name: str, drains: dict[Subject, list[Drain]], goal: Goal) -> list[Figure]:
    rates = {subject: [one.jobs_per_s for one in runs] for subject, runs in drains.items()}
    return [
        Figure(name=name, subject=ours, unit="jobs/s", ours=rates[ours], stock=rates[Subject.STOCK], goal=goal)
        for ours in OURS
    ]


def _cpu_figures(drains: dict[Subject, list[Drain]]) -> list[Figure]:
    def figure(name: str, ours: Subject, costs: dict[Subject, list[float]]) -> Figure:
        return Figure(name=name, subject=ours, unit="CPU µs/job", ours=costs[ours], stock=costs[Subject.STOCK])

    worker = {subject: [one.worker_us for one in runs] for subject, runs in drains.items()}
    server = {subject: [one.server_us for one in runs] for subject, runs in drains.items()}
    return [
        *(figure("no-op job, worker", ours, worker) for ours in OURS),
        *(figure("no-op job, Valkey", ours, server) for ours in OURS),
    ]
