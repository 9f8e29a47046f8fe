"""One chaos run from start to verdict: servers, fleet, load and storm at once, then calm, evidence, and a report."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
from redis.asyncio import Redis

from shared.config import Settings
from tests.chaos import money, verdict
from tests.chaos.backends import Backends, open_backends
from tests.chaos.evidence import (
    BookReader,
    EndedCounter,
    Evidence,
    keys_left,
    lease_faults,
    read_errors,
    read_postgres,
    read_records,
)
from tests.chaos.faults import KINDS, Site
from tests.chaos.fleet import Fleet, open_fleet
from tests.chaos.load import Load
from tests.chaos.patience import holds
from tests.chaos.plan import Plan, draw
from tests.chaos.report import Report
from tests.chaos.storm import Storm
from tests.ledger.agreement import disagreements, read_counters

LEASE_S = 1.5
MAX_ATTEMPTS = 6
WATCH_S = 0.1
NARRATE_S = 15.0
DRAINED_S = 120.0
CLEAN_S = 20.0
CALM_JOBS_PER_S = 500
"""More than any machine takes: a calm run ends by the clock."""


@dataclass(frozen=True)
class Options:
    jobs: int = 20_000
    conversations: int = 200
    faults: int = 20
    """Of each kind."""
    seed: int = 0
    calm_s: float = 0.0
    """No faults, and load for so long."""
    workers: int = 3
    tell: Callable[[str], None] = lambda _line: None
    """Hears now and then how far the run is."""


@dataclass
class Run:
    options: Options
    plan: Plan
    backends: Backends
    fleet: Fleet
    load: Load
    storm: Storm
    books: BookReader
    redis: Redis
    notes: list[str] = field(default_factory=list)

    async def play(self) -> None:
        """Load and faults, to their ends; then until every accepted job is over."""
        async with _beside(self.fleet.supervise(), self.watch(), self.narrate(), self.books.keep_reading()):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.load.run(self.fleet.port))
                group.create_task(self.storm.run())
            if not await holds(lambda: self.load.ended >= self.load.count, DRAINED_S):
                self.notes.append(f"{self.load.count - self.load.ended} jobs had not ended after {DRAINED_S:g} s")
            await holds(self._is_clean, CLEAN_S)

    async def watch(self) -> None:
        """Keeps the load's idea of what is over up to date."""
        counter = EndedCounter(lambda: self.backends.books_dsn)
        try:
            while True:
                ended = await counter.count()
                self.load.ended = self.load.ended if ended is None else ended
                await self.load.look_again()
                await asyncio.sleep(WATCH_S)
        finally:
            counter.close()

    async def narrate(self) -> None:
        """Says how far it is, for whoever waits."""
        started_s = time.monotonic()
        while True:
            await asyncio.sleep(NARRATE_S)
            faults = f"{len(self.storm.windows)} of {sum(map(len, self.plan.strikes.values()))} faults"
            jobs = f"{self.load.count} jobs accepted, {self.load.ended} ended"
            self.options.tell(f"  {time.monotonic() - started_s:4.0f} s: {jobs}, {faults}")

    async def _is_clean(self) -> bool:
        workers = len(self.fleet.workers)
        return not (await keys_left(self.redis) or await lease_faults(self.redis, workers=workers))

    async def gather(self) -> Evidence:
        """Stops the fleet on the way: leases are looked at before and after."""
        leases = await lease_faults(self.redis, workers=len(self.fleet.workers))
        await self.fleet.stop()
        leases += await lease_faults(self.redis, workers=0)
        await holds(self._nobody_is_served, CLEAN_S)
        job_ids = [item.job_id for conversation in self.load.accepted for item in conversation]
        rows = await read_postgres(self.backends.books_dsn)
        repeated = [str(row["job_id"]) for row in rows["jobs"] if row["attempts"] > 1]
        return Evidence(
            accepted=self.load.accepted,
            **rows,
            errors=await read_errors(self.redis, repeated),
            served=self.books.entries,
            records=await read_records(self.redis, job_ids),
            keys_left=await keys_left(self.redis),
            counters=disagreements(await read_counters(self.redis), rows["calls"]),
            leases=leases,
            windows=self.storm.windows,
            max_attempts=MAX_ATTEMPTS,
            lease_s=LEASE_S,
            exits=[exit_ for process in self.fleet.processes for exit_ in process.unasked_exits],
            memory=[life for process in self.fleet.processes for life in process.lives],
        )

    async def _nobody_is_served(self) -> bool:
        await self.books.read()
        return self.books.concurrency == 0


async def run(options: Options) -> Report:
    """Everything is torn down when it returns. Violations are in the report, not raised."""
    async with _opened(options) as opened:
        started_s = time.monotonic()
        await opened.play()
        played_s = time.monotonic() - started_s
        evidence = await opened.gather()
        counts = _counts(opened, evidence, played_s)
    findings = [check(evidence) for check in [*verdict.INVARIANTS, *money.MONEY]]
    return Report(options.seed, findings, counts, [*opened.notes, *opened.storm.notes])


@contextlib.asynccontextmanager
async def _opened(options: Options) -> AsyncIterator[Run]:
    calm = options.calm_s > 0
    jobs = int(options.calm_s * CALM_JOBS_PER_S) if calm else options.jobs
    faults = 0 if calm else options.faults
    plan = draw(options.seed, jobs=jobs, conversations=options.conversations, faults=faults, kinds=list(KINDS))
    load = Load(plan, window=options.conversations * 2)
    async with open_backends() as backends, httpx.AsyncClient(base_url=backends.standin.url, timeout=30) as standin:
        (await standin.post("/_behaviour", json=plan.rules())).raise_for_status()
        settings = _settings(backends)
        async with (
            open_fleet(backends, settings, workers=options.workers) as fleet,
            Redis.from_url(backends.valkey.url()) as redis,
        ):
            site = Site(backends, fleet, LEASE_S)
            storm = Storm(plan, site, accepted=lambda: load.count, changed=load.look_again)
            load.limit = storm.limit
            if calm:
                until_s = time.monotonic() + options.calm_s
                load.over = lambda: time.monotonic() > until_s
            yield Run(options, plan, backends, fleet, load, storm, BookReader(standin), redis)


def _settings(backends: Backends) -> Settings:
    """As in production but for waits that a run has no time for; and what no model answered must be seen to be dead."""
    return Settings.read(
        {
            "openai_api_key": "sk-stand-in",
            "openai_base_url": backends.standin.openai_base_url,
            "anthropic_api_key": "sk-stand-in",
            "anthropic_base_url": backends.standin.anthropic_base_url,
            "lease_s": LEASE_S,
            "drain_s": 1.0,
            "cache_ttl_s": 0,
            "max_attempts": MAX_ATTEMPTS,
            "retry_base_s": 0.1,
            "retry_cap_s": 1.0,
            "model_timeout_s": 10.0,
            "model_idle_timeout_s": 2.0,
            "degraded_reply": "none",
            "log_level": "INFO",
        }
    )


@contextlib.asynccontextmanager
async def _beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs them within the block; one that fails ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()


def _counts(run: Run, evidence: Evidence, played_s: float) -> dict[str, object]:
    states = Counter(row["state"] for row in evidence.jobs)
    attempts = Counter(row["attempts"] for row in evidence.jobs)
    struck = Counter(window.kind for window in evidence.windows)
    model_faults = Counter(entry["fault"] for entry in evidence.served if entry["fault"] is not None)
    processes = run.fleet.processes
    return {
        "seconds": round(played_s, 1),
        "jobs accepted": run.load.count,
        "jobs a second": round(run.load.count / played_s, 1),
        "conversations": len(run.load.accepted),
        "tries repeated by callers": run.load.repeats,
        "accepted unheard, then replayed": run.load.replays,
        "states": _list(states),
        "jobs by attempts": _list(attempts),
        "faults": _list(struck),
        "failures of models": _list(model_faults),
        "lives of processes": sum(len(process.lives) for process in processes),
        "starts while a server was away": sum(process.failed_starts for process in processes),
        "errors in their logs": _list(sum((process.errors_logged() for process in processes), Counter())),
        **money.summary(evidence),
    }


def _list(counter: Counter[Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=str)) or "none"
