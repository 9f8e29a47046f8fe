"""What is too old, or too much, goes by itself: tenant by tenant, a few thousand rows at a time.

`retention_days` is the tenant's setting, the caps are the deployment's. The ledger stays: its months are partitions.
Called by the console's upkeep; a crash in between leaves the rest for the next time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from ops.tenants.records import Tenant
from shared.config import Settings
from shared.db import Pool
from shared.tenants import settings_of
from sql import queries

log = structlog.get_logger("retention")

EVERY_S = 3_600
BATCH = 5_000
CONVERSATIONS = 500
"""Looked at in one step."""
PAUSE_S = 0.02
"""Between steps: turns go first."""
PAGE = 200


class Retention:
    def __init__(self, pool: Pool, settings: Settings, *, batch: int = BATCH) -> None:
        """`pool` is of the role that sees all tenants."""
        self._pool, self._settings, self._batch = pool, settings, batch

    async def run_if_due(self) -> bool:
        """Whether it was this process's turn. Raises Unavailable."""
        if not await self._pool.fetchval(queries["claim_retention"], EVERY_S):
            return False
        await self._pool.fetchval(queries["drop_old_fences"])
        async for tenant in self._tenants():
            try:
                days = settings_of(tenant.settings).retention_days
            except ValueError as error:  # nobody should guess what is to be deleted
                log.error("retention_skipped", of=tenant.id, fault=str(error))  # noqa: TRY400 - no fault of ours
                continue
            gone = await self.retire(tenant.id, datetime.now(UTC) - timedelta(days=days))
            if gone:
                log.info("retired", of=tenant.id, days=days, **gone)
        return True

    async def retire(self, tenant: str, cutoff: datetime) -> Counter[str]:
        """How much of what went."""
        gone: Counter[str] = Counter()
        after: str | None = ""
        while after is not None:
            args = (tenant, cutoff, self._settings.conversation_messages, after, CONVERSATIONS, self._batch)
            row = await self._pool.fetchrow(queries["retire_conversations"], *args)
            if row is None:
                raise RuntimeError("retire_conversations returns one row")
            gone.update(messages=row["messages"], conversations=row["conversations"])
            after = row["next"]
            await asyncio.sleep(PAUSE_S)
        most = self._settings.user_conversations
        gone["conversations"] += await self._all(lambda: self._step("cap_conversations", tenant, most, CONVERSATIONS))
        gone["jobs"] += await self._all(lambda: self._step("retire_jobs", tenant, cutoff, self._batch))
        gone["rows"] += await self._all(lambda: self._step("retire_rows", tenant, cutoff, self._batch))
        return +gone

    async def _step(self, query: str, *args: object) -> int:
        return int(await self._pool.fetchval(queries[query], *args))

    @staticmethod
    async def _all(step: Callable[[], Awaitable[int]]) -> int:
        """The sum of what its steps did, until one has nothing to do."""
        total = 0
        while count := await step():
            total += count
            await asyncio.sleep(PAUSE_S)
        return total

    async def _tenants(self) -> AsyncIterator[Tenant]:
        after: str | None = None
        while True:
            rows = await self._pool.fetch(queries["list_tenants"], None, after, PAGE)
            found = [msgspec.json.decode(row["tenant"], type=Tenant) for row in rows]
            for tenant in found:
                yield tenant
            if len(found) < PAGE:
                return
            after = found[-1].id
