"""What rules are judged by, from the ledger and the jobs; each figure once per judging, however many rules want it.

Sums over the ledger, not counters: they are exact, and nothing that a crash could leave behind stands in between. A
call belongs to the moment inside its id, as in every report.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from shared.db import Pool
from sql import queries

T = TypeVar("T")


class Span(NamedTuple):
    """From `start` to before `end` (UTC)."""

    start: datetime
    end: datetime

    @property
    def us(self) -> tuple[int, int]:
        return unix_us(self.start), unix_us(self.end)


class Spent(NamedTuple):
    cost_nano_usd: int
    tokens: int
    conversations: int


class Jobs(NamedTuple):
    """Jobs that ended: all but cancelled, merged and rejected ones. Percentiles are those of successes."""

    ended: int
    failed: int
    succeeded: int
    p50_s: float | None
    p99_s: float | None


class Figures:
    """Of one judging. `tenant` is a tenant, or `*` for all of them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[tuple[object, ...], Any] = {}

    async def spent(self, tenant: str, span: Span) -> Spent:
        return await self._once(Spent, lambda: self._row("spent_between", tenant, *span.us), "spent", tenant, span)

    async def jobs(self, tenant: str, span: Span) -> Jobs:
        return await self._once(Jobs, lambda: self._row("jobs_between", tenant, *span.us), "jobs", tenant, span)

    async def users(self, tenant: str, span: Span) -> int:
        return int(await self._pool.fetchval(queries["users_between"], tenant, *span.us))

    async def spending_users(self, tenant: str, span: Span, least_nano_usd: int) -> list[tuple[str, int]]:
        """Who spent so much or more, and how much."""
        rows = await self._pool.fetch(queries["spending_users"], tenant, *span.us, least_nano_usd)
        return [(row["who"], row["cost_nano_usd"]) for row in rows]

    async def spending_conversations(self, tenant: str, since: datetime, least_nano_usd: int) -> list[tuple[str, int]]:
        """Those with a call since then that have cost so much or more in all."""
        rows = await self._pool.fetch(queries["spending_conversations"], tenant, unix_us(since), least_nano_usd)
        return [(row["who"], row["cost_nano_usd"]) for row in rows]

    async def _once(self, kind: Callable[..., T], ask: Callable[[], Awaitable[dict[str, Any]]], *key: object) -> T:
        if key not in self._known:
            self._known[key] = kind(**await ask())
        found: T = self._known[key]
        return found

    async def _row(self, query: str, *args: object) -> dict[str, Any]:
        row = await self._pool.fetchrow(queries[query], *args)
        if row is None:
            raise RuntimeError(f"{query} returns one row")
        return dict(row)


def unix_us(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
