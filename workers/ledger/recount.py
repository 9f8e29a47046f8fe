"""The counters of spent money, made anew from the ledger after Redis lost its memory; nothing is reserved meanwhile.

Every worker takes part that meets closed money, or looks and finds it closed (`keep_open`); one at a time does the
work, under a lock that runs out. It waits until the ledger has all there is: for one lease, in which workers that live
find out, stop what they lost and post its rows; for those that say they are not done (`sb:money:unposted`); and until
no call is open. Then a sum is exact and nothing is held. Conversations are not counted here: the next call of each asks
the ledger.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from shared import keys
from shared.budgets import KEPT_S, counter_key, period_ends_s
from shared.db import Pool, Row
from shared.errors import Unavailable
from shared.redis import Argument, Commands
from shared.scripts import Script
from sql import queries

logger = logging.getLogger("switchboard.money")
T = TypeVar("T")

_reopen = Script("reopen")
LOCK_MS = 8_000
"""Renewed every quarter while the work is under way."""
LOOK_S = 0.1
OPEN_CALLS_PATIENCE_S = 150.0
"""How long calls still open in Redis are waited for: longer than an agent may take."""
BATCH = 200


class Recount:
    """One per worker."""

    def __init__(self, commands: Commands, pool: Pool, *, lease_s: float) -> None:
        self._commands, self._pool = commands, pool
        self._lease_ms = int(lease_s * 1000)
        self._token = secrets.token_hex(8)
        self._work: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """At the start of a worker: where money never was open it opens at once, for no call can be under way.

        Raises Unavailable.
        """
        if await self._commands.run("EXISTS", keys.MONEY):
            return
        if await self._pool.fetchval(queries["open_money_first"]):
            self._lease_ms, usual_ms = 0, self._lease_ms
            await self.opened()
            self._lease_ms = usual_ms
        else:
            self._join()

    def keep_open(self) -> None:
        """From now on, until `aclose`, look once a lease: it must not stay closed until somebody wants to spend."""
        self._watch = asyncio.ensure_future(self._look_on(self._lease_ms / 1000))

    async def opened(self) -> None:
        """Returns when the counters stand. Cancelled callers leave the others waiting."""
        await asyncio.shield(self._join())

    async def aclose(self) -> None:
        for task in (self._watch, self._work):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def _look_on(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                if not await self._commands.run("EXISTS", keys.MONEY):
                    await self.opened()
            except Unavailable:
                continue  # the next look tells
            except Exception:
                logger.exception("money could not be opened")

    def _join(self) -> "asyncio.Task[None]":
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._reopen())
        return self._work

    async def _reopen(self) -> None:
        while True:
            try:
                if await self._step():
                    return
            except Unavailable as error:
                logger.warning("money stays closed: %s", error)
            await asyncio.sleep(LOOK_S)

    async def _step(self) -> bool:
        """Whether it is open."""
        outcome, wait_ms = await self._begin()
        if outcome == b"open":
            return True
        if outcome == b"wait":
            await asyncio.sleep(min(wait_ms, LOCK_MS / 4) / 1000)
        if outcome != b"ready":
            return False
        async with self._lock_kept():
            await self._wait_for_open_calls()
            return await self._count()

    async def _count(self) -> bool:
        """False when somebody else has the lock by now."""
        steps: list[tuple[str, Sequence[Argument]]] = [
            ("clear", some) for some in _batches(await self._found(keys.SPENT), BATCH)
        ]
        sums = await self._pool.fetch(queries["spent_sums"], datetime.now(UTC))
        steps += [("fill", _filled(some)) for some in _batches(sums, BATCH)]
        for verb, args in [*steps, ("open", [secrets.token_hex(8)])]:
            if await self._call(verb, *args) != b"OK":
                return False
        logger.warning("money is open: %d counters were made from the ledger", len(sums))
        return True

    @contextlib.asynccontextmanager
    async def _lock_kept(self) -> AsyncIterator[None]:
        async def keep() -> None:
            while True:
                await asyncio.sleep(LOCK_MS / 4000)
                with contextlib.suppress(Unavailable):  # then it runs out
                    await self._begin()

        keeper = asyncio.ensure_future(keep())
        try:
            yield
        finally:
            keeper.cancel()

    async def _wait_for_open_calls(self) -> None:
        """Their turns post what they have, or end; nothing new is reserved."""
        until = time.monotonic() + OPEN_CALLS_PATIENCE_S
        found = await self._found(keys.CALLS)
        while found and time.monotonic() < until:
            await asyncio.sleep(5 * LOOK_S)
            found = await self._found(keys.CALLS)
        if found:
            logger.error("calls of %d jobs are still open, of %s and others", len(found), found[0].decode())

    async def _found(self, prefix: str) -> list[bytes]:
        found: list[bytes] = []
        cursor: Argument = 0
        while True:
            cursor, names = await self._commands.run("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", 1_000)
            found += names
            if not int(cursor):
                return found

    async def _begin(self) -> tuple[bytes, float]:
        outcome, wait_ms = await self._call("begin", LOCK_MS, self._lease_ms)
        return outcome, float(wait_ms)

    async def _call(self, verb: str, *args: Argument) -> Any:
        return await _reopen(self._commands, [], [self._token, verb, *args])


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _filled(sums: Iterable[Row]) -> list[Argument]:
    flat: list[Argument] = []
    for row in sums:
        key = counter_key(row["kind"], row["period"], row["tenant"], row["user"])
        flat += [key, row["cost_nano_usd"], row["tokens"], period_ends_s(row["period"]) + KEPT_S]
    return flat
