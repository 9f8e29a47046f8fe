"""Group commit: attempts that end in the same tick end in one script call, which may bring the next jobs with it.

One call is under way at a time; what ends meanwhile joins the next. While Redis is away the ends wait here: the
effects they announce are committed already, so waiting loses nothing, and the fence decides when it is back.
"""

import asyncio
import logging
from collections.abc import Callable

from shared.errors import Unavailable
from workers.queue.scripts import Claims, Finish, QueueScripts

logger = logging.getLogger("switchboard.finish")

MAX_BATCH = 200
MERGE_BELOW = 16
"""A batch this small claims its successors in the same call; a large one is quicker followed by a separate claim."""


class Finisher:
    """`await finish(worker, end)` → whether the attempt was still ours."""

    def __init__(self, scripts: QueueScripts, *, want: Callable[[int], int], take: Callable[[Claims], None]) -> None:
        self._scripts = scripts
        self._want = want
        """How many jobs to claim, given how many are ending."""
        self._take = take
        self._pending: list[tuple[str, Finish, asyncio.Future[bool]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def finish(self, worker: str, end: Finish) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append((worker, end, done))
        if self._flusher is None:
            self._flusher = asyncio.ensure_future(self._flush())
        return await done

    async def _flush(self) -> None:
        try:
            while self._pending:
                worker, batch = self._next_batch()
                verdicts = await self._call(worker, [end for _, end, _ in batch])
                for (_, _, done), ours in zip(batch, verdicts, strict=True):
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
        delay_s = 0.05
        while True:
            claim_n = self._want(len(ends)) if len(ends) <= MERGE_BELOW else 0
            try:
                verdicts, claims = await self._scripts.finish(worker, ends, claim_n)
            except Unavailable as error:
                logger.warning("%d ends wait: %s", len(ends), error)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 1.0)
                continue
            if claims is not None:
                self._take(claims)
            return verdicts
