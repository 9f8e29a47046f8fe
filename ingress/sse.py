"""A job's events as server-sent events: what the capped stream holds, then what comes, until the job has ended.

The stream in Redis is the truth, a notice only says that it grew. `JobEvents` reads and waits, `Frames` says what a
client sees of it: here in our own form, in `ingress.openai` in OpenAI's. A client that goes away costs nothing further
and never touches the job.

Our own form: `id:` is the event's number, so a client that comes back with `Last-Event-ID` misses nothing that is still
kept; `events.truncated` says when something is not. The last event is `job.<state>` with the whole job.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Send

from ingress.notices import Notices
from shared.errors import InvalidRequest, Unavailable
from shared.jobs import JobRecord
from shared.redis import Commands
from shared.scripts import read_events
from shared.wire import Event, EventType

PAGE = 200
"""Events per read, so that a long stream never stands in memory as a whole."""
RETRY_S = 0.5
"""Pause before the next try while Redis or Postgres cannot be reached; the stream stays open."""
OPENED = b": connected\n\n"
KEEPALIVE = b": keep-alive\n\n"
ENDED_ID = "ended"
"""Id of a last event whose number is not known any more, because only Postgres remembers the job."""
_MAX_SEQ = 2**63 - 1
_EVENT_ID = re.compile(r"[0-9]{1,18}")
"""All of them are below `_MAX_SEQ`."""


class EventStream(StreamingResponse):
    """Ends its source at once when the client goes, instead of when the garbage collector finds it."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # ours is an async generator
            await super().stream_response(send)


def frame(kind: str, data: str, event_id: str | None = None) -> bytes:
    """One event. `data` is JSON, which has no line breaks."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {kind}\ndata: {data}\n\n".encode()


def last_seen(event_id: str | None) -> int:
    """The number behind a `Last-Event-ID`; 0 without one. Raises InvalidRequest for what we never sent."""
    if not event_id:
        return 0
    if event_id == ENDED_ID:
        return _MAX_SEQ
    if not _EVENT_ID.fullmatch(event_id):
        raise InvalidRequest("Last-Event-ID must be the id of an event of this job.")
    return int(event_id)


class Frames(Protocol):
    """What a client is sent of a job's events. Each call returns bytes for the wire, possibly none."""

    over: bool
    """Whether the client is sent nothing more, though the job has not ended."""

    def opened(self, record: JobRecord) -> bytes: ...

    def event(self, event: Event) -> bytes: ...

    def truncated(self, after: int, missing: int) -> bytes:
        """`missing` events behind number `after` are not kept any more."""
        ...

    def ended(self, record: JobRecord, seq: int | None) -> bytes:
        """`seq` is the number of the end, None once only Postgres remembers the job."""
        ...

    def lost(self) -> bytes:
        """Nobody knows the job any more."""
        ...


class OwnFrames:
    over = False

    def opened(self, _record: JobRecord) -> bytes:
        return b""

    def event(self, event: Event) -> bytes:
        return frame(event.type, event.data, str(event.seq))

    def truncated(self, after: int, missing: int) -> bytes:
        return frame("events.truncated", f'{{"after":{after},"missing":{missing}}}')

    def ended(self, record: JobRecord, seq: int | None) -> bytes:
        resource = msgspec.json.encode(record.resource()).decode()
        return frame(f"job.{record.state}", resource, ENDED_ID if seq is None else str(seq))

    def lost(self) -> bytes:
        return b""  # the client will be told 404


Find = Callable[[], Awaitable[JobRecord | None]]
"""Reads a record anew, from wherever it is kept by then."""


class JobEvents:
    """The events of one job after number `after`."""

    def __init__(
        self, commands: Commands, record: JobRecord, find: Find, *, after: int = 0, frames: Frames | None = None
    ) -> None:
        self._commands = commands
        self._record = record
        self._find = find
        self._last = after
        self._frames = frames or OwnFrames()
        self._complete = self._lost = False

    async def all_seen(self) -> bool:
        """Whether the client has had the last event: then it asks only because EventSource always reconnects."""
        if not self._record.over or not self._last:
            return False
        newest, _ = await read_events(self._commands, self._record.id, after=_MAX_SEQ, count=1)
        return self._last == _MAX_SEQ or 0 < newest <= self._last

    async def stream(self, notices: Notices, keepalive_s: float) -> AsyncIterator[bytes]:
        """Frames to send, until the job has ended."""
        yield OPENED + self._frames.opened(self._record)  # a proxy, and EventSource.onopen, wait for the first byte
        async with notices.watch(self._record.id) as watch:
            recheck = False
            while not self._complete:
                try:
                    frames, pause_s = await self._next(recheck=recheck), keepalive_s
                except Unavailable:
                    frames, pause_s = b"", min(RETRY_S, keepalive_s)
                if frames:
                    yield frames
                elif not self._complete and (recheck := not await watch.wait(pause_s)):
                    yield KEEPALIVE

    async def _next(self, *, recheck: bool) -> bytes:
        """What is new, possibly nothing. Raises Unavailable and has then skipped nothing."""
        if recheck:  # a silent time: the record itself may be gone, or the stream's last event with it
            await self._reread()
        ended = self._record.over
        events = await self._page()
        if ended and not events:
            self._complete = True
            return self._frames.ended(self._record, None)
        if events and events[-1].type == EventType.ENDED and not ended:
            await self._reread()
        return b"".join([self._framed(event) for event in events]) + (self._frames.lost() if self._lost else b"")

    def _framed(self, event: Event) -> bytes:
        if self._frames.over:
            return b""
        missing = event.seq - self._last - 1
        gap = self._frames.truncated(self._last, missing) if missing > 0 else b""
        self._last = event.seq
        if event.type == EventType.ENDED:
            self._complete = True
            return gap + self._frames.ended(self._record, event.seq)
        framed = self._frames.event(event)
        self._complete |= self._frames.over
        return gap + framed

    async def _reread(self) -> None:
        found = await self._find()
        self._lost = found is None  # by both stores
        self._complete |= self._lost
        self._record = found or self._record

    async def _page(self) -> list[Event]:
        _, found = await read_events(self._commands, self._record.id, after=self._last, count=PAGE)
        return found
