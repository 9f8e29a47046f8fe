"""Group commit: attempts that end in the same tick end in one script call, which may bring the next jobs with it.

One call is under way at a time; what ends meanwhile joins the next. While Redis is away the ends wait here: the
effects they announce are committed already, so waiting loses nothing, and the fence decides when it is back. Only a
worker that leaves gives them up, once an outage has outlasted its lease: its jobs are going to be handed on anyway.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from shared.errors import Unavailable
from workers.queue.scripts import Claims, Finish, QueueScripts

logger = logging.getLogger("switchboard.finish")

MAX_BATCH = 200
MERGE_BELOW = 16
"""A batch this small claims its successors in the same call; a large one is quicker followed by a separate claim."""


class Finisher:
    """`await finish(worker, end)` → whether the attempt was still ours."""

    def __init__(
        self,
        scripts: QueueScripts,
        *,
        want: Callable[[str, int], int],
        take: Callable[[Claims], None],
        patience_s: Callable[[], float],
    ) -> None:
        self._scripts = scripts
        self._want = want
        """How many jobs to claim for a worker, given how many of its jobs are ending."""
        self._take = take
        self._patience_s = patience_s
        """How long an outage may last until ends are given up."""
        self.claiming = 0
        """Jobs asked for in the call under way."""
        self.reserved = 0
        """Slots that call may fill beyond those of the jobs it ends."""
        self._pending: list[tuple[str, Finish, asyncio.Future[bool]]] = []
        self._flusher: asyncio.Task[None] | None = None

    def finish(self, worker: str, end: Finish) -> "asyncio.Future[bool]":
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append((worker, end, done))
        if self._flusher is None:
            self._flusher = asyncio.ensure_future(self._flush())
        return done

    async def settled(self) -> None:
        """Returns when nothing is left to tell."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])

    async def _flush(self) -> None:
        try:
            while self._pending:
                worker, batch = self._next_batch()
                waiting = [done for _, _, done in batch]
                try:
                    verdicts = await self._call(worker, [end for _, end, _ in batch])
                except Exception as error:  # noqa: BLE001 - not an outage; those who wait must learn of it
                    for done in _open(waiting):
                        done.set_exception(error)
                    continue
                for done, ours in zip(waiting, verdicts, strict=True):
                    if not done.done():
                        done.set_result(ours)
        finally:
            self._flusher = None

    def _next_batch(self) -> tuple[str, list[tuple[str, Finish, asyncio.Future[bool]]]]:
        worker = self._pending[0][0]  # ends of a lost incarnation go under its own name
        batch: list[tuple[str, Finish, asyncio.Future[bool]]] = []
        rest: list[tuple[str, Finish, asyncio.Future[bool]]] = []
        for item in self._pending:
            (batch if item[0] == worker and len(batch) < MAX_BATCH else rest).append(item)
        self._pending = rest
        return worker, batch

    async def _call(self, worker: str, ends: list[Finish]) -> list[bool]:
        delay_s, since = 0.05, time.monotonic()
        while True:
            try:
                return await self._call_once(worker, ends)
            except Unavailable as error:
                if time.monotonic() - since > self._patience_s():
                    logger.error("%d ends given up, their jobs will be handed on: %s", len(ends), error)  # noqa: TRY400 - an outage, not a fault of ours
                    return [False] * len(ends)
                logger.warning("%d ends wait: %s", len(ends), error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 1.0)

    async def _call_once(self, worker: str, ends: list[Finish]) -> list[bool]:
        self.claiming = self._want(worker, len(ends)) if len(ends) <= MERGE_BELOW else 0
        self.reserved = max(0, self.claiming - len(ends))
        try:
            verdicts, claims = await self._scripts.finish(worker, ends, self.claiming)
        finally:
            self.claiming = self.reserved = 0
        if claims is not None:
            self._take(claims)
        return verdicts


def _open(futures: list[asyncio.Future[bool]]) -> list[asyncio.Future[bool]]:
    """Those somebody still waits for."""
    return [future for future in futures if not future.done()]
