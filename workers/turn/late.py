"""Ledger rows of attempts that lost their job: what was paid for is posted all the same, while the worker goes on.

The job's next taker posts what it found of these calls in Redis, and whoever comes first is right. But Redis may have
lost its memory: then this process is the only one that knows, and it says so (`sb:money:unposted`), so that the
counters are not made anew before the ledger has these rows.
"""

import asyncio
import contextlib
import logging
import math
from functools import partial

from shared import keys
from shared.errors import Unavailable
from shared.redis import Commands
from workers.ledger.book import LedgerRow
from workers.turn.store import TurnStore

logger = logging.getLogger("switchboard.money")

_PAUSE_S = 0.1


class LateRows:
    """One per worker. `aclose` waits for a lease's time, then gives up what Postgres would not take."""

    def __init__(self, commands: Commands, store: TurnStore, *, lease_s: float) -> None:
        self._commands, self._store, self._lease_s = commands, store, lease_s
        self._posting: set[asyncio.Task[None]] = set()

    def post(self, tenant: str, rows: list[LedgerRow], *, admitted_us: int | None = None) -> None:
        """In the background, for as long as it takes. `admitted_us`: when their job was admitted."""
        if rows:
            task = asyncio.ensure_future(self._post(tenant, rows, admitted_us))
            self._posting.add(task)
            task.add_done_callback(partial(self._posted, rows))

    async def aclose(self) -> None:
        if self._posting:
            await asyncio.wait(self._posting, timeout=self._lease_s)
        for task in list(self._posting):
            task.cancel()

    async def _post(self, tenant: str, rows: list[LedgerRow], admitted_us: int | None) -> None:
        name = rows[0].call_id
        while True:
            with contextlib.suppress(Unavailable):
                await self._say(name)
            try:
                await self._store.post(tenant, rows, lambda: True, admitted_us=admitted_us)
                break
            except Unavailable as error:
                logger.warning("%d rows of a lost attempt wait: %s", len(rows), error)
                await asyncio.sleep(_PAUSE_S)
        with contextlib.suppress(Unavailable):  # it runs out by itself
            await self._commands.run("ZREM", keys.UNPOSTED, name)

    async def _say(self, name: str) -> None:
        """For two leases. The key goes with its last entry, should we be killed before we take ours out."""
        for_s = 2 * self._lease_s + 1
        seconds, _ = await self._commands.run("TIME")
        await asyncio.gather(
            self._commands.run("ZADD", keys.UNPOSTED, int((seconds + for_s) * 1000), name),
            *(self._commands.run("EXPIRE", keys.UNPOSTED, math.ceil(for_s), when) for when in ("NX", "GT")),
        )

    def _posted(self, rows: list[LedgerRow], task: "asyncio.Task[None]") -> None:
        self._posting.discard(task)
        if task.cancelled():
            logger.error("%d rows of a lost attempt are not in the ledger", len(rows))
        elif error := task.exception():
            logger.error("%d rows of a lost attempt are not in the ledger", len(rows), exc_info=error)
