"""The delivery process's loop: claim what is due while there are free slots, send it, write down what became of it.

The table is the queue (decisions/0021): a crash between any two lines leaves rows that are `sending` until their lease
lapses; they are sent again under the same id, by which receivers know them. So every event arrives at least once. What
is different for replies through messengers is in `workers.replies`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from shared.errors import Unavailable
from shared.telemetry import context
from workers.delivery.books import Claimed, DeliveryBooks
from workers.delivery.metrics import named, observe
from workers.delivery.outcome import Outcome
from workers.replies.outcome import ReplyEnd

log = structlog.get_logger("delivery")

POLL_S = 0.25
"""How often an idle process looks for new rows: half of it is what a delivery waits on average."""
TIDY_EVERY_S = 1.0
LOOK_EVERYWHERE_EVERY_S = 60.0
OUTAGE_PAUSE_S = 1.0


class Courier:
    """`rest` is awaited after each attempt: what it still holds when it is over, its slot does, too."""

    def __init__(
        self,
        books: DeliveryBooks,
        send: Callable[[Claimed], Awaitable[Outcome | ReplyEnd]],
        rest: Callable[[], Awaitable[None]],
        *,
        slots: int,
    ) -> None:
        self._books, self._send, self._rest, self._slots = books, send, rest, slots
        self._running: dict[asyncio.Task[None], str] = {}
        """Attempts under way, each with its tenant: nobody gets more slots than are left (`sendable` in SQL)."""
        self._moved = asyncio.Event()
        self._leaving = False
        self._tidied_s = float("-inf")
        self._looked_s = time.monotonic()

    @property
    def state(self) -> str:
        """For probes."""
        return "draining" if self._leaving else "ok"

    async def run(self) -> None:
        """Until `leave`; then until what is under way is over."""
        while not self._leaving:
            self._moved.clear()
            try:
                found = await self._step()
            except Unavailable as error:
                log.warning("delivery.outage", fault=str(error))
                await self._moment(OUTAGE_PAUSE_S)
                continue
            if not found:
                await self._moment(POLL_S)
        if self._running:
            await asyncio.wait(self._running)

    def leave(self) -> None:
        """Claim no more."""
        self._leaving = True
        self._moved.set()

    async def _step(self) -> bool:
        """Whether something was claimed: then there may be more."""
        await self._tidy()
        free = self._slots - len(self._running)
        if free <= 0:
            return False
        claimed = await self._books.claim(free, Counter(self._running.values()))
        for one in claimed:
            task = asyncio.create_task(self._deliver(one))
            self._running[task] = one.tenant
            task.add_done_callback(self._ended)
        return bool(claimed)

    async def _tidy(self) -> None:
        if time.monotonic() - self._tidied_s >= TIDY_EVERY_S:
            recovered = await self._books.tidy()
            self._tidied_s = time.monotonic()
            if recovered:
                log.warning("delivery.recovered", deliveries=recovered)
        if time.monotonic() - self._looked_s >= LOOK_EVERYWHERE_EVERY_S:
            missed = await self._books.look_everywhere()
            self._looked_s = time.monotonic()
            if missed:
                log.error("delivery.missed", receivers=missed)

    async def _moment(self, at_most_s: float) -> None:
        """A while, or until an attempt is over."""
        try:
            async with asyncio.timeout(at_most_s):
                await self._moved.wait()
        except TimeoutError:
            pass

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._running[task]
        self._moved.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("delivery.broke", exc_info=error)  # its lease lapses, and it is tried again

    async def _deliver(self, one: Claimed) -> None:
        started_s = time.monotonic()
        outcome = await self._send(one)
        latency_s = time.monotonic() - started_s
        ours = await self._recorded(one, outcome, latency_s)
        observe(one.kind, outcome, latency_s)
        log.info(
            "delivery.attempt",
            delivery=one.id,
            tenant=one.tenant,
            **_of_job(one),
            kind=one.kind,
            type=one.event_type,
            endpoint=one.endpoint,
            attempt=one.attempt,
            outcome=named(outcome),
            code=outcome.code if isinstance(outcome, ReplyEnd) else None,
            status=outcome.status,
            latency_ms=round(latency_s * 1_000, 1),
            late=not ours,
        )
        self._moved.set()  # the next one of its lane may go
        await self._rest()

    async def _recorded(self, one: Claimed, outcome: Outcome | ReplyEnd, latency_s: float) -> bool:
        """Waits for Postgres: what was sent should not be sent again for want of a note."""
        while True:
            try:
                return await self._books.record(one, outcome, latency_s)
            except Unavailable:
                if self._leaving:
                    return False
                await asyncio.sleep(OUTAGE_PAUSE_S)


def _of_job(one: Claimed) -> dict[str, str]:
    """What leads from a line to those of the job whose end is delivered."""
    if not one.event_type.startswith("job."):
        return {}
    return {"job_id": one.body["id"], "conversation_id": context.conversation(one.body["conversation_id"])}
