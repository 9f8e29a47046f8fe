"""How much is measured: the full run of docs/performance.md, and a quick one that only proves that all of it works."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    rounds: int
    """Each figure is measured this often, the subjects taking turns."""
    backlog_jobs: int
    """No-op and 50 ms jobs waiting when a worker starts."""
    trip_jobs: int
    """Jobs whose round trips are counted."""
    pickups: int
    """Jobs sent one by one to an idle worker."""
    idle_s: float
    """How long an idle worker's CPU time is watched."""
    inflight_jobs: int
    fleet_workers: int
    fleet_slots: int
    """Of each worker of the fleet; arq's own read limit is five times this, at least 100."""
    held_jobs: int
    """Running in the worker that is killed."""
    warm_s: float
    """Load on a process before it is measured, so that connections, scripts and keys are there."""
    load_s: float
    """Load on a process while it is measured."""
    turns: int
    """Whole turns, from message to commit."""
    wait_for_stock: bool
    """Whether stock arq's locks are waited for after a SIGKILL."""


FULL = Scale(
    rounds=3,
    backlog_jobs=10_000,
    trip_jobs=600,
    pickups=100,
    idle_s=10.0,
    inflight_jobs=5_000,
    fleet_workers=6,
    fleet_slots=20,
    held_jobs=100,
    warm_s=2.0,
    load_s=8.0,
    turns=4_000,
    wait_for_stock=True,
)
QUICK = Scale(
    rounds=1,
    backlog_jobs=60,
    trip_jobs=30,
    pickups=2,
    idle_s=0.2,
    inflight_jobs=50,
    fleet_workers=2,
    fleet_slots=3,
    held_jobs=5,
    warm_s=0.3,
    load_s=0.5,
    turns=40,
    wait_for_stock=False,
)
