"""Text on its way to readers: what all running jobs have to say goes out in one call, at most 20 times a second.

The first piece after a pause leaves at once, so that the first token is not delayed. What a job said last goes with its
end, in the same call. A lost piece is not repeated: the whole reply is in the job record at the end.
"""

import asyncio
import logging
from functools import partial
from typing import Any

import msgspec

from shared.errors import Unavailable
from shared.wire import EventType
from workers.queue.scripts import Claimed, QueueScripts, delta

logger = logging.getLogger("switchboard.emit")

INTERVAL_S = 0.05


class Emitter:
    """`text(job, piece)` never waits. A job's end takes its `rest` along, once what it said before is `under_way` no
    more."""

    def __init__(self, scripts: QueueScripts) -> None:
        self._scripts = scripts
        self._texts: dict[str, tuple[Claimed, list[str]]] = {}
        self._carried: dict[str, asyncio.Task[None]] = {}
        """By job: the last call that carries something of it, until Redis has answered."""
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._sending: asyncio.Task[None] | None = None

    def text(self, job: Claimed, piece: str) -> None:
        if job.lost:
            return
        speaker, pieces = self._texts.get(job.id, (None, []))
        if speaker is not job:  # nobody, or a lost claim of the same job
            pieces = []
            self._texts[job.id] = (job, pieces)
        pieces.append(piece)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._sent_at + INTERVAL_S), self._start)

    def rest(self, job: Claimed) -> str:
        """What `job` said that is not sent yet: from here on its caller's to send."""
        speaker, pieces = self._texts.get(job.id, (None, ()))
        if speaker is not job:  # nothing, or what a later claim of the same job says
            return ""
        del self._texts[job.id]
        return "".join(pieces)

    def under_way(self, job: Claimed) -> "asyncio.Future[None] | None":
        """Done when Redis has answered all that was sent of what `job` said, or will not. None: it has."""
        return self._carried.get(job.id)

    async def take_back(self, job: Claimed) -> None:
        """Tells readers that what `job` has said is void; what it says next comes after that."""
        if job.id in self._texts:
            self._start()
        if (call := self.under_way(job)) is not None:
            await asyncio.wait([call])
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
        if self._texts:
            self._sent_at = asyncio.get_running_loop().time()
            before, texts, self._texts = self._sending, self._texts, {}
            self._sending = asyncio.ensure_future(self._send(before, texts))
            self._carried |= dict.fromkeys(texts, self._sending)
            self._sending.add_done_callback(partial(self._sent, list(texts)))

    def _sent(self, jobs: list[str], call: "asyncio.Task[None]") -> None:
        if not call.cancelled() and (error := call.exception()) is not None:
            logger.error("text of %d jobs not shown: %s", len(jobs), error, exc_info=error)
        for job_id in jobs:
            if self._carried.get(job_id) is call:
                del self._carried[job_id]

    async def _send(self, before: "asyncio.Task[None] | None", texts: dict[str, tuple[Claimed, list[str]]]) -> None:
        if before is not None:
            await asyncio.wait([before])  # pieces of one job must not overtake each other
        by_worker: dict[str, list[tuple[str, str, str, str]]] = {}
        for job, pieces in texts.values():
            event = (job.id, job.claim, EventType.DELTA.value, delta("".join(pieces)))
            by_worker.setdefault(job.worker, []).append(event)
        for worker, events in by_worker.items():
            try:
                lost: Any = await self._scripts.emit(worker, events)
            except Unavailable as error:
                logger.warning("%d pieces of text not shown: %s", len(events), error)
                continue
            for job_id in lost:
                texts[job_id][0].lost = True
