"""A job's events as the chunks of a streamed chat completion.

A chunk adds text and nothing can correct it: a stream whose text is not the beginning of the reply ends with an error,
which the SDK raises, and never as if it were whole.
"""

from typing import Any

import msgspec

from ingress.openai.errors import as_openai, openai_body
from ingress.openai.failures import failure_of
from ingress.openai.shapes import FINISHES, chat_head, chat_mark, chat_usage
from ingress.problems import problem_of
from shared.errors import Unanswered
from shared.jobs import JobRecord
from shared.responses import incomplete_reason, status_of
from shared.wire import Event, EventType

DONE = b"data: [DONE]\n\n"


class ChatFrames:
    """`void_until`: as for `ResponseFrames`."""

    def __init__(self, record: JobRecord, include_usage: bool, void_until: int = 0) -> None:
        self.over = False
        self._head = chat_head(record, "chat.completion.chunk")
        self._include_usage = include_usage
        self._void_until = void_until
        self._text: str | None = None
        self._gap = False

    def opened(self, _record: JobRecord) -> bytes:
        return b""

    def event(self, event: Event) -> bytes:
        if event.seq <= self._void_until:
            return b""
        if event.type == EventType.DELTA:
            return self._add(msgspec.json.decode(event.data)["delta"])
        if event.type == EventType.RESET and self._text:
            return self._fail("attempt_reset", "the answer was begun anew; ask again")
        return b""

    def truncated(self, after: int, missing: int) -> bytes:
        self._gap |= after >= self._void_until
        return b""

    def ended(self, record: JobRecord, seq: int | None) -> bytes:
        if status_of(record) not in ("completed", "incomplete"):
            return _error(failure_of(record))
        reply, text = record.reply or "", self._text or ""
        if self._gap or not reply.startswith(text):
            return self._fail("text_lost", "the text that was streamed is not the whole answer; ask again")
        rest = self._add(reply[len(text) :])
        end = self._chunk({}, FINISHES[incomplete_reason(record)], **chat_mark(record))
        usage = self._usage(record) if self._include_usage else b""
        return rest + end + usage + DONE

    def lost(self) -> bytes:
        return self._fail("job_lost", "the answer is not known any more")

    def _add(self, piece: str) -> bytes:
        role = b""
        if self._text is None:
            self._text, role = "", self._chunk({"role": "assistant", "content": "", "refusal": None})
        self._text += piece
        return role + (self._chunk({"content": piece}) if piece else b"")

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **mark: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**self._head, "choices": [choice], **({"usage": None} if self._include_usage else {}), **mark})

    def _usage(self, record: JobRecord) -> bytes:
        return _data({**self._head, "choices": [], "usage": chat_usage(record.usage)})

    def _fail(self, code: str, message: str) -> bytes:
        self.over = True
        return _error(Unanswered(message, code=code, status=502, again=False, headers={}))


def _error(error: Unanswered) -> bytes:
    return _data(openai_body(as_openai(problem_of(error))))


def _data(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
