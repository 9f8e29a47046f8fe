"""Erasing a user, or one conversation, everywhere: a job that anybody may go on with after a crash.

    begin   a fence in Postgres, and in the same transaction everything a turn could read is gone
    fence   the fence moves to now: what is admitted from here on reads nothing of before, and is left alone
    wait    until every transaction is over that began to write before it and may not have seen it
    books   what those wrote, jobs, deliveries, leftovers of channels go; ledger rows lose the user
    flight  waiting jobs go, running ones are stopped; until none is left
    money   counters that name the user become what the ledger has for them
    done    kept answers of the tenant go, and who it was is forgotten

Each step may be repeated. Who it is stands encrypted in the erasure's row until it is done.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from ops.users.books import ErasingBooks, Erasure
from ops.users.flight import Flight, Look
from ops.users.whom import Seals, Whom
from shared.config import Settings
from shared.db import Pool, Row
from shared.sealing import Unreadable
from sql import queries
from workers.erasure.subjects import Subjects, erasure_keys

log = structlog.get_logger("erasure")

LEASE_S = 60
"""Somebody else goes on with an erasure that nobody has noted anything of for so long."""
RESUMED_FOR_S = 120.0
LOOK_AGAIN_S = 0.2
LOOK_AGAIN_LATEST_S = 5.0


class Eraser:
    """One per process."""

    def __init__(self, pool: Pool, flight: Flight, seals: Seals) -> None:
        self._pool, self._books, self._flight, self._seals = pool, ErasingBooks(pool), flight, seals

    @classmethod
    def of(cls, settings: Settings, deployment_id: str, pool: Pool, flight: Flight) -> "Eraser":
        seals = Seals(erasure_keys(settings, deployment_id), Subjects.of(settings, deployment_id))
        return cls(pool, flight, seals)

    async def begin(self, whom: Whom, by: str) -> str:
        """The erasure's id. From here on nothing of before is read into a turn; the rest is `finish`'s.

        A user who is being erased already is erased up to now. Raises Unavailable: then nothing may have begun.
        """
        args = (self._seals.seal(whom), self._seals.subjects(whom), await self._flight.now_us())
        return await self._books.begin(whom, *args, by=by, lease_s=LEASE_S)

    async def finish(self, whom: Whom, request: str, by: str, before_us: int | None = None) -> Erasure | None:
        """All that follows, however long it takes; None when somebody else was quicker. Raises Unavailable.

        `before_us`: where the fence stands already, so that nobody is erased who came back meanwhile.
        """
        before_us = await self._flight.now_us() if before_us is None else before_us
        look = await self._flight.look(whom, before_us)
        whom.add(look.conversations)
        await self._note(whom, request, look.counts)
        await self._fence(whom, request, before_us)
        await self._erase_books(whom, request, before_us, by)
        await self._wait_for_flight(whom, request, before_us, by)
        dropped = await self._flight.drop_answers(whom)
        done = await self._books.note(whom.tenant, request, {"kept_answers": dropped}, done=True, lease_s=0)
        log.info("erasure_done", of=whom.tenant, erasure=request, by=by, counts=done.counts if done else None)
        return done

    async def resume(self, limit: int) -> int:
        """Goes on with erasures that nobody works on; how many there were. For a role that sees all tenants."""
        rows = await self._pool.fetch(queries["claim_erasures"], limit, LEASE_S)
        for error in await asyncio.gather(*(self._resume(row) for row in rows), return_exceptions=True):
            if isinstance(error, BaseException):
                raise error
        return len(rows)

    async def _resume(self, row: Row) -> None:
        try:
            whom = self._seals.open(row["tenant"], row["sealed"])
        except Unreadable as error:  # a person must bring the key back, or ask for it anew
            log.error("erasure_unreadable", of=row["tenant"], erasure=row["request"], fault=str(error))  # noqa: TRY400 - no fault of ours
            return
        fenced_us = row["erased_before_us"] if row["state"] == "fenced" else None
        with contextlib.suppress(TimeoutError):  # its turn comes again, once others had theirs
            async with asyncio.timeout(RESUMED_FOR_S):
                await self.finish(whom, row["request"], row["requested_by"], fenced_us)

    async def _fence(self, whom: Whom, request: str, before_us: int) -> None:
        """Returns when whatever did not see the fence is over."""
        args = (self._seals.seal(whom), self._seals.subjects(whom), before_us)
        await self._books.fence(whom, request, *args)
        horizon = await self._books.horizon()
        delay_s = 0.005
        while not await self._books.passed(horizon):
            await self._note(whom, request, {})
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 1.0)

    async def _erase_books(self, whom: Whom, request: str, before_us: int, by: str) -> None:
        found: Counter[str] = Counter()

        async def repeats(job_ids: list[str]) -> None:
            await self._flight.repeats(whom, set(job_ids), found)

        found.update(await self._books.again(whom, before_us))
        found.update(await self._books.calls(whom, before_us))
        found.update(await self._books.jobs(whom, before_us, repeats))
        found.update(await self._books.apart(whom, before_us, by))
        await self._note(whom, request, found)

    async def _wait_for_flight(self, whom: Whom, request: str, before_us: int, by: str) -> None:
        """Until Redis holds nothing, and the counters are right."""
        delay_s = LOOK_AGAIN_S
        while True:
            look = await self._flight.look(whom, before_us)
            await self._note(whom, request, look.counts)
            if whom.add(look.conversations):
                await self._fence(whom, request, before_us)
                await self._erase_books(whom, request, before_us, by)
            elif look.live == 0 and await self._count_money(whom, look):
                return
            await asyncio.sleep(delay_s)
            delay_s = min(1.5 * delay_s, LOOK_AGAIN_LATEST_S)

    async def _count_money(self, whom: Whom, look: Look) -> bool:
        """Counters that name them are made what the ledger has, which has no row of theirs but of those who returned:
        so only while nobody spends anything. False: later."""
        if look.started:
            return False
        counted = True
        for counter, of in self._flight.counters(whom, datetime.now(UTC)).items():
            was = await self._flight.spent(counter)
            if was is not None:
                now = await self._ledger(whom, of)
                counted = await self._flight.set_spent(counter, was, now) and counted
        return counted

    async def _ledger(self, whom: Whom, of: datetime | str) -> tuple[int, int]:
        if isinstance(of, datetime):
            return await self._books.user_month(whom, of)
        return await self._books.conversation(whom, of)

    async def _note(self, whom: Whom, request: str, counts: Mapping[str, int]) -> None:
        """What was done, and that somebody is at it."""
        await self._books.note(whom.tenant, request, counts, done=False, lease_s=LEASE_S)
