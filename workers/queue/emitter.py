"""Text on its way to readers: what all running jobs have to say goes out in one call, at most 20 times a second.

The first piece after a pause leaves at once, so that the first token is not delayed. A lost piece is not repeated: the
whole reply is in the job record at the end.
"""

import asyncio
import logging
from typing import Any

import msgspec

from shared.errors import Unavailable
from shared.wire import EventType
from workers.queue.scripts import Claimed, QueueScripts

logger = logging.getLogger("switchboard.emit")

INTERVAL_S = 0.05


class Emitter:
    """`text(job, piece)` never waits; `flush(job)` returns when everything it said has left."""

    def __init__(self, scripts: QueueScripts) -> None:
        self._scripts = scripts
        self._texts: dict[str, tuple[Claimed, list[str]]] = {}
        self._spoke: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._sending: asyncio.Task[None] | None = None

    def text(self, job: Claimed, piece: str) -> None:
        self._spoke.add(job.id)
        self._texts.setdefault(job.id, (job, []))[1].append(piece)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._sent_at + INTERVAL_S), self._start)

    def spoke(self, job: Claimed) -> bool:
        """Whether `job` said anything that `flush` has not seen off."""
        return job.id in self._spoke

    async def flush(self, job: Claimed) -> None:
        """Returns when everything `job` said has left; at once when it said nothing."""
        if job.id in self._texts:
            self._start()
        if job.id in self._spoke and self._sending is not None:
            await asyncio.shield(self._sending)
        self._spoke.discard(job.id)

    async def take_back(self, job: Claimed) -> None:
        """Tells readers that what `job` has said is void; what it says next comes after that."""
        await self.flush(job)
        data = msgspec.json.encode({"attempt": job.attempt}).decode()
        try:
            lost = await self._scripts.emit(job.worker, [(job.id, job.claim, EventType.RESET.value, data)])
        except Unavailable as error:
            logger.warning("text not taken back: %s", error)
            return
        job.lost = job.lost or job.id in lost

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sent_at = asyncio.get_running_loop().time()
        if self._texts:
            before, texts, self._texts = self._sending, self._texts, {}
            self._sending = asyncio.ensure_future(self._send(before, texts))

    async def _send(self, before: "asyncio.Task[None] | None", texts: dict[str, tuple[Claimed, list[str]]]) -> None:
        if before is not None:
            await asyncio.wait([before])  # pieces of one job must not overtake each other
        by_worker: dict[str, list[tuple[str, str, str, str]]] = {}
        for job, pieces in texts.values():
            data = msgspec.json.encode({"delta": "".join(pieces)}).decode()
            by_worker.setdefault(job.worker, []).append((job.id, job.claim, EventType.DELTA.value, data))
        for worker, events in by_worker.items():
            try:
                lost: Any = await self._scripts.emit(worker, events)
            except Unavailable as error:
                logger.warning("%d pieces of text not shown: %s", len(events), error)
                continue
            for job_id in lost:
                texts[job_id][0].lost = True
