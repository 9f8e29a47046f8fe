"""The whole deployment in numbers, for one scrape: queues, what waits in Redis for Postgres, Redis's memory, dead jobs,
and what goes on beside the conversations.

Any console tells the same, so scrape one. Asked at the scrape and kept for `KEEP_S`, so that impatient scrapers cost
nothing. A part whose server is away is left out, with its `switchboard_collector_up` at 0; the others are told.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from ops.beside import declare_budgets, declare_deliveries, declare_erasures, declare_outbox
from ops.models import declare_models, read_models
from ops.queues import declare, read_stats
from shared import keys
from shared.config import Settings
from shared.db import Pool
from shared.errors import Unavailable
from shared.redis import Commands
from sql import queries

log = structlog.get_logger(__name__)

Part = Callable[[CollectorRegistry], Awaitable[None]]
KEEP_S = 5.0
ANSWER_TIMEOUT_S = 3.0
"""Less than Prometheus waits for a scrape."""


class Load:
    """`await text()` is the part of `/metrics` that belongs to no process."""

    def __init__(self, commands: Commands, names: Sequence[str], settings: Settings, *, books: Pool | None) -> None:
        """`books` None: this console's role sees one tenant at a time, and so cannot count what is all tenants'."""
        self._commands, self._names, self._settings, self._books = commands, names, settings, books
        self._one_at_a_time = asyncio.Lock()
        self._text, self._read_at = b"", float("-inf")

    async def text(self) -> bytes:
        async with self._one_at_a_time:
            if time.monotonic() - self._read_at >= KEEP_S:
                self._text, self._read_at = await self._read(), time.monotonic()
            return self._text

    async def _read(self) -> bytes:
        """A registry per reading: a queue or an agent that is gone leaves no stale number behind."""
        registry = CollectorRegistry()
        up = Gauge("switchboard_collector_up", "Whether this part could be asked.", ["collector"], registry=registry)
        for name, part in self._parts().items():
            up.labels(name).set(await _told(part(registry)))
        return generate_latest(registry)

    def _parts(self) -> Mapping[str, Part]:
        asked: dict[str, Part] = {
            "queues": self._queues,
            "models": self._models,
            "redis_memory": self._memory,
            "budgets": partial(declare_budgets, self._commands, self._settings),
        }
        if self._books is None:
            return asked
        return asked | {
            "dead_jobs": self._dead_jobs,
            "memory_tasks": self._memory_tasks,
            "memory_outbox": partial(declare_outbox, self._books),
            "deliveries": partial(declare_deliveries, self._books),
            "erasures": partial(declare_erasures, self._books),
        }

    async def _queues(self, registry: CollectorRegistry) -> None:
        stats = await read_stats(self._commands, self._names, slots_per_worker=self._settings.worker_concurrency)
        waiting = await self._commands.run("XLEN", keys.ENDED)
        declare(stats, registry)
        ends = Gauge("switchboard_ends_waiting", "Ends Postgres does not have yet.", registry=registry)
        ends.set(waiting)

    async def _models(self, registry: CollectorRegistry) -> None:
        declare_models(await read_models(self._commands), registry)

    async def _memory(self, registry: CollectorRegistry) -> None:
        info = await self._commands.run("INFO", "memory")
        for name, field in (("used", "used_memory"), ("limit", "maxmemory")):
            text = "Redis's memory; limit 0: none is set."
            Gauge(f"switchboard_redis_memory_{name}_bytes", text, registry=registry).set(int(info.get(field, 0)))

    async def _dead_jobs(self, registry: CollectorRegistry) -> None:
        rows = await self._books.fetch(queries["count_open_dead_jobs"]) if self._books else []
        gauge = Gauge("switchboard_dead_jobs", "Dead jobs nobody has dealt with.", ["agent"], registry=registry)
        for row in rows:
            gauge.labels(row["agent"]).set(row["jobs"])

    async def _memory_tasks(self, registry: CollectorRegistry) -> None:
        rows = await self._books.fetch(queries["memory_task_load"]) if self._books else []
        due = Gauge("switchboard_memory_tasks_due", "Summaries and facts to be made.", ["kind"], registry=registry)
        text = "For how long the oldest of them has been due."
        oldest = Gauge("switchboard_memory_task_oldest_seconds", text, ["kind"], registry=registry)
        for row in rows:
            due.labels(row["kind"]).set(row["due"])
            oldest.labels(row["kind"]).set(row["oldest_s"])


async def _told(part: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await part
    except (Unavailable, TimeoutError) as error:
        log.warning("load_not_read", cause=str(error) or "no answer in time")
        return False
    return True
