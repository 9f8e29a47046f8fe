"""Taking jobs: one claim at a time, by itself or along with a finish; its answer is never lost track of.

A claim whose answer got lost leaves strays: jobs that Redis counts as ours and that nobody runs. Every answer carries
the count Redis has, so the next one tells; strays then go back to their place, and their attempt is not counted.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shared.redis import Argument
from workers.queue.finisher import Finisher
from workers.queue.membership import Membership
from workers.queue.scripts import MAX_CLAIM, Claimed, Claims, Finish, QueueScripts

logger = logging.getLogger("switchboard.claim")


STANDING_SLOTS, STANDING_NEEDS = 2, 8
"""What a claim takes that comes with a token: its job, and room to see that there are no more. And open slots without
which it is not made, since other claims cannot have those it keeps; with that many, others leave it room."""


class Standing(NamedTuple):
    """A claim that waits in Redis behind the wait for a token, and is made the moment one comes."""

    worker: str
    command: tuple[Argument, ...]


class Taker:
    """`await claim(limit)` starts the jobs it gets; `finisher` ends them and may bring more; `stand` and `stood` claim
    with a token."""

    def __init__(
        self,
        scripts: QueueScripts,
        membership: Membership,
        *,
        running: Mapping[str, Claimed],
        open_slots: Callable[[], int],
        merge_limit: Callable[[], int],
        start: Callable[[Claimed], None],
        on_ends_waiting: Callable[[], None],
        patience_s: Callable[[], float],
    ) -> None:
        self._scripts, self._membership = scripts, membership
        self._running = running
        """Every job whose attempt runs here, until Redis was told how it ended."""
        self._open_slots = open_slots
        self._merge_limit = merge_limit
        """How many jobs a finish may claim: 0 while draining and in a burst."""
        self._start, self._on_ends_waiting = start, on_ends_waiting
        self.finisher = Finisher(scripts, want=self._want, take=self._take, patience_s=patience_s)
        self.next_due_at: float | None = 0.0
        """When something is due again, on the monotonic clock; None when nothing is known to be."""
        self.looks_at = 0.0
        """When the worker looks by itself, on the monotonic clock."""
        self._standing = 0
        """Slots kept for the claim that waits for a token."""
        self._one_at_a_time = asyncio.Lock()
        self._asking = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._strays_suspected = False

    def hungry(self) -> bool:
        """Whether a wake token is of use here; also during a claim, which may have come too early for its job."""
        return self._open_slots() > 0

    def free_slots(self) -> int:
        """Slots that no running job and no claim under way may fill."""
        return max(0, self._room())

    def _room(self) -> int:
        return self._open_slots() - self._asking - self._standing - self.finisher.reserved

    def _claimable(self) -> int:
        """Slots for a claim of any other kind: one that took them all would leave none for that with the next token."""
        room = self._room()
        kept = STANDING_SLOTS if not self._standing and min(room, self._merge_limit()) >= STANDING_NEEDS else 0
        return room - kept

    def stand(self) -> Standing | None:
        """A claim to be sent along with the wait for a token, whose answer, or that there will be none, must be told to
        `stood`. None while there should be no such claim: it keeps slots that other claims may need.
        """
        worker = self._membership.name
        roomy = min(self._open_slots(), self._merge_limit()) >= STANDING_NEEDS and self._room() >= STANDING_SLOTS
        if not roomy or not worker or self._strays_suspected:
            return None
        self._standing = STANDING_SLOTS
        return Standing(worker, self._scripts.claim_command(worker, STANDING_SLOTS))

    def stood(self, standing: Standing, reply: Any) -> bool:
        """Starts the jobs in its `reply` (None: none came); whether the queue should be looked at again."""
        self._standing = 0
        if reply is None:
            return False
        if isinstance(reply, Exception):  # the script is not known, say
            return True
        claims = self._scripts.claims(standing.worker, reply)
        if claims is None:
            self._membership.lost(standing.worker)
            return True
        self._take(claims)
        due_sooner = self.next_due_at is not None and self.next_due_at < self.looks_at
        return due_sooner or self._strays_suspected or len(claims.jobs) == STANDING_SLOTS

    async def claim(self, limit: int, only: Sequence[str] = ()) -> None:
        """Shielded: a claim whose caller is cancelled must still learn which jobs it was given.

        Raises redis-py's errors.
        """
        claiming = asyncio.ensure_future(self._claim(limit, only))
        self._under_way.add(claiming)
        claiming.add_done_callback(self._under_way.discard)
        await asyncio.shield(claiming)

    async def settled(self) -> None:
        """Returns when no claim is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _claim(self, limit: int, only: Sequence[str]) -> None:
        async with self._one_at_a_time:
            n = min(limit, self._claimable(), MAX_CLAIM)
            if n <= 0:
                return
            await self._membership.join()
            worker = self._membership.name
            try:
                await self._claim_while_full(worker, n, limit, only)
            finally:
                self._asking = 0
            if self._standing and self.free_slots() == 0 and self._due_now():
                await self._scripts.wake()
            if self._strays_suspected and not self.finisher.claiming and not self._standing:
                await self._return_strays(worker)

    def _due_now(self) -> bool:
        return self.next_due_at is not None and self.next_due_at <= time.monotonic()

    async def return_strays(self) -> None:
        """Of a claim whose answer will not be read any more. Raises redis-py's errors."""
        if self._membership.name:
            await self._return_strays(self._membership.name)

    async def _claim_while_full(self, worker: str, n: int, limit: int, only: Sequence[str]) -> None:
        """As long as there is more than one call takes, the next is under way when the jobs of the last one start."""
        self._asking = n
        asked = asyncio.ensure_future(self._scripts.claim(worker, n, only=only))
        while n > 0:
            claims = await asked
            if claims is None:
                self._membership.lost(worker)
                return
            got, limit = len(claims.jobs), limit - n
            n = self._ahead(limit, got) if got == n and not only else 0
            self._asking = n + got
            if n > 0:
                asked = asyncio.ensure_future(self._scripts.claim(worker, n))
                await asyncio.sleep(0)  # it leaves before the loop is busy with the new jobs
            self._asking = n
            self._take(claims)

    def _ahead(self, limit: int, got: int) -> int:
        """How many to ask for while `got` new ones have no slot yet."""
        if self._strays_suspected:
            return 0
        self._asking = got
        return max(0, min(limit, self._merge_limit(), self._claimable(), MAX_CLAIM))

    def _want(self, worker: str, ending: int) -> int:
        """Jobs to claim along with `ending` finishes: their slots are about to be free."""
        if worker != self._membership.name or self._strays_suspected:
            return 0
        return max(0, min(self._claimable() + ending, self._merge_limit(), MAX_CLAIM))

    def _take(self, claims: Claims) -> None:
        if claims.worker != self._membership.name:
            return  # of a life that ended meanwhile: they are being handed on
        self.next_due_at = None if claims.next_ms is None else time.monotonic() + claims.next_ms / 1000
        for job in claims.jobs:
            self._start(job)
        if claims.held > len(self._running) + self.finisher.claiming + self._standing:
            self._strays_suspected = True
        if claims.ends_waiting:
            self._on_ends_waiting()

    async def _return_strays(self, worker: str) -> None:
        """Looks closer while no other claim can be under way; a mere suspicion changes nothing."""
        held = await self._scripts.held(worker)
        self._strays_suspected = False
        strays = [Finish(i, claim, "release", posted=False) for i, claim in held.items() if i not in self._running]
        if strays:
            logger.warning("%d jobs claimed in an answer that never came go back", len(strays))
            await asyncio.gather(*(self.finisher.finish(worker, stray) for stray in strays))
