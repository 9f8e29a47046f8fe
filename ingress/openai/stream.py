"""A job's events in the form of the Responses API: the order its SDK needs, numbered so that a client can go on later.

A stream is always made from the job's first event on and cut at `starting_after`: the same event has the same number
each time. Events of ours take numbers 3 above their own, so that what comes before (created, queued, in_progress, the
item and its part) has room. The number of the end is followed by the ends of text, part, item and response.

When text was shown and the attempt begins anew, nothing can take it back: the stream ends with `response.failed`, while
the job goes on and can be retrieved. A client that comes later is not shown such text at all.
"""

from typing import Any

import msgspec

from ingress.openai.naming import item_id
from ingress.openai.shapes import OutputText, Response, ResponseError, begun, output_message, response_of
from ingress.sse import frame
from shared.jobs import JobRecord
from shared.responses import status_of
from shared.wire import Event, EventType

CREATED, QUEUED, IN_PROGRESS, ITEM_ADDED, PART_ADDED, FIRST_TEXT = range(6)
SHIFT = 3
_ENDS = {"completed": "response.completed", "incomplete": "response.incomplete"}
"""Others are told by `response.failed`; the response itself says `failed` or `cancelled`."""
BEGUN_ANEW = ResponseError(
    "server_error", "attempt_reset: the answer is begun anew; retrieve the response to get it when it is there"
)


class ResponseFrames:
    """`after`: the number of the last event the client has seen, -1 for none.

    `void_until`: the number of the last event of ours that made earlier text void, as known when the stream begins.
    """

    def __init__(self, record: JobRecord, after: int = -1, void_until: int = 0) -> None:
        self.over = False
        self._record = record
        self._after = after
        self._void_until = void_until
        self._last = after
        self._started = False
        self._open = False
        self._saw_void = False
        self._gap = False
        self._text = ""

    def opened(self, record: JobRecord) -> bytes:
        created = self._tell(CREATED, "response.created", response=begun(record, "queued"))
        return created + self._tell(QUEUED, "response.queued", response=begun(record, "queued"))

    def event(self, event: Event) -> bytes:
        match event.type:
            case EventType.STARTED:
                return self._start()
            case EventType.DELTA:
                return self._delta(event)
            case EventType.RESET if event.seq > self._void_until or self._saw_void:
                return self._void(event.seq + SHIFT)
            case _:
                return b""

    def truncated(self, after: int, missing: int) -> bytes:
        self._gap = True  # the ends of text and response hold the whole of it
        return b""

    def ended(self, record: JobRecord, seq: int | None) -> bytes:
        self._record = record
        number = max(FIRST_TEXT, self._last + 1) if seq is None else seq + SHIFT
        begin = self._start() if record.started_us is not None else b""
        status = status_of(record)
        text = b"" if record.reply is None else self._whole(record.reply, number, known=seq is not None)
        kind = _ENDS.get(status, "response.failed")
        return begin + text + self._tell(number + 4, kind, response=response_of(record))

    def lost(self) -> bytes:
        message = "The response is not known any more."
        return self._tell(self._last + 1, "error", code="server_error", message=message, param=None)

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return self._tell(IN_PROGRESS, "response.in_progress", response=begun(self._record, "in_progress"))

    def _delta(self, event: Event) -> bytes:
        number = event.seq + SHIFT
        if event.seq <= self._void_until:
            self._saw_void |= number <= self._after
            if not self._saw_void:
                return b""
        piece: str = msgspec.json.decode(event.data)["delta"]
        self._text += piece
        return self._begin() + self._add(number, piece)

    def _add(self, number: int, piece: str) -> bytes:
        return self._tell(number, "response.output_text.delta", **self._place(), delta=piece, logprobs=[])

    def _void(self, number: int) -> bytes:
        if not self._text:
            return b""
        self.over = True
        so_far = begun(self._record, "in_progress")
        failed: Response = msgspec.structs.replace(so_far, status="failed", error=BEGUN_ANEW)
        return self._tell(number, "response.failed", response=failed)

    def _begin(self) -> bytes:
        """The item and its part, once."""
        if self._open:
            return b""
        self._open = True
        item = output_message(self._record, None, "in_progress")
        return self._tell(ITEM_ADDED, "response.output_item.added", output_index=0, item=item) + self._tell(
            PART_ADDED, "response.content_part.added", **self._place(), part=OutputText("")
        )

    def _whole(self, reply: str, number: int, *, known: bool) -> bytes:
        """What was not shown yet, and the ends of text, part and item.

        Pieces that were lost on the way are made good where they are the last ones. Where only Postgres knows the job,
        a client that goes on behind the first piece is taken to have seen the text.
        """
        shown = self._gap or not (known or self._text or self._after < FIRST_TEXT)
        rest = "" if shown or not reply.startswith(self._text) else reply[len(self._text) :]
        place, part = self._place(), OutputText(reply)
        frames = [self._begin()]
        if rest:
            frames.append(self._add(number, rest))
        return b"".join(
            [
                *frames,
                self._tell(number + 1, "response.output_text.done", **place, text=reply, logprobs=[]),
                self._tell(number + 2, "response.content_part.done", **place, part=part),
                self._tell(
                    number + 3, "response.output_item.done", output_index=0, item=output_message(self._record, reply)
                ),
            ]
        )

    def _place(self) -> dict[str, Any]:
        return {"item_id": item_id(self._record.id), "output_index": 0, "content_index": 0}

    def _tell(self, number: int, kind: str, **members: Any) -> bytes:
        if number <= self._after:
            return b""
        self._last = max(self._last, number)
        data = msgspec.json.encode({"type": kind, "sequence_number": number, **members}).decode()
        # No `id:`: once it has seen one, OpenAI's Python decoder takes the blank line behind a comment for an event.
        return frame(kind, data)
