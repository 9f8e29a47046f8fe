"""What autoscalers and people want to know of the queues; asked by `jobs stats` and by the console.

    utilisation      in flight / slots of the live workers, which each said how many it has; None without one
    desired workers  ceil((in flight + due) / slots of one worker), at least 1 while any job is known; one worker has
                     the mean of the live ones, or what the asker's settings say while there is none

Due are heads of conversations that a worker could start at once. Followers are left out: they cannot start before
their head ends, so workers started for them would have nothing to do.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge

from shared import keys
from shared.redis import Commands
from shared.scripts import Script

_queue_stats = Script("queue_stats")


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    queue: str
    depth: int
    """Jobs never started, those that wait behind another one of their conversation included."""
    due: int
    """Heads of conversations that a free worker would start now."""
    delayed: int
    """Jobs that wait for their next attempt."""
    in_flight: int
    oldest_age_s: float
    """How long the oldest due job has waited; 0 when none is due."""
    live_workers: int
    slots: int
    """Jobs that all live workers can run at once."""
    slots_per_worker: int
    utilisation: float | None
    desired_workers: int


async def read_stats(commands: Commands, queues: Sequence[str], *, slots_per_worker: int) -> list[QueueStats]:
    """One instant of each queue; all of them share a round trip. Raises Unavailable."""
    return list(await asyncio.gather(*(_read(commands, queue, slots_per_worker) for queue in queues)))


async def _read(commands: Commands, queue: str, slots: int) -> QueueStats:
    depth, due, delayed, in_flight, workers, oldest_ms, all_slots = await _queue_stats(
        commands, [keys.queue(queue)], []
    )
    if all_slots:
        slots = max(1, round(all_slots / workers))
    known = depth + due + delayed + in_flight
    return QueueStats(
        queue=queue,
        depth=depth,
        due=due,
        delayed=delayed,
        in_flight=in_flight,
        oldest_age_s=max(0, oldest_ms) / 1000,
        live_workers=workers,
        slots=all_slots,
        slots_per_worker=slots,
        utilisation=in_flight / all_slots if all_slots else None,
        desired_workers=max(math.ceil((in_flight + due) / slots), 1 if known else 0),
    )


_GAUGES = {
    "depth": ("switchboard_queue_depth", "Jobs never started."),
    "due": ("switchboard_queue_due", "Heads of conversations that could start now."),
    "delayed": ("switchboard_queue_delayed", "Jobs that wait for their next attempt."),
    "in_flight": ("switchboard_queue_in_flight", "Jobs that run."),
    "oldest_age_s": ("switchboard_queue_oldest_age_seconds", "Wait of the oldest due job."),
    "live_workers": ("switchboard_queue_live_workers", "Workers with a lease."),
    "utilisation": ("switchboard_queue_utilisation_ratio", "Jobs in flight over slots of live workers."),
    "desired_workers": ("switchboard_queue_desired_workers", "Workers that what is due and in flight would fill."),
}


def declare(stats: Sequence[QueueStats], registry: CollectorRegistry) -> None:
    """The same as gauges."""
    for field, (name, help_text) in _GAUGES.items():
        gauge = Gauge(name, help_text, ["queue"], registry=registry)
        for queue in stats:
            value: Any = getattr(queue, field)
            if value is not None:
                gauge.labels(queue.queue).set(value)
