"""A job as everyone sees it: its states, its record in Redis, and the resource callers are shown.

    queued → running → (retrying → running)* → succeeded | dead | cancelled
    queued → expired | cancelled | rejected | merged

The record is a Redis hash while the job is in flight and for `result_ttl_s` after its end; afterwards the same
resource is built from the row in Postgres. Times are integers, Unix microseconds; money is integer nano-USD.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

import msgspec

from shared.wire import Asked


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    MERGED = "merged"

    @property
    def ended(self) -> bool:
        return self not in _LIVE


_LIVE = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.RETRYING})


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one or several model calls. `input_tokens` is the total, cached and cache-written ones included."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Input tokens read from the provider's prompt cache (part of `input_tokens`)."""
    cache_write_tokens: int = 0
    """Input tokens written to the provider's prompt cache (part of `input_tokens`)."""
    reasoning_tokens: int = 0
    """Output tokens spent on reasoning (part of `output_tokens`)."""

    def __add__(self, other: "Usage") -> "Usage":
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Usage(*(a + b for a, b in zip(mine, others, strict=True)))


class JobError(msgspec.Struct, frozen=True):
    """Why a job did not succeed. `code` is stable; `message` is for people and never holds a traceback."""

    code: str
    message: str
    retryable: bool = False


Degraded = Literal["budget", "providers"]


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a caller may be told about a job, wherever it is read from."""

    id: str
    tenant: str
    agent: str
    conversation_id: str
    user_id: str | None
    state: JobState
    created_us: int
    started_us: int | None = None
    finished_us: int | None = None
    merged_into: str | None = None
    """The later job that answers for this one; its reply, or its error, is shown here once there is one."""
    run: int = 1
    attempts: int = 0
    position: int | None = None
    """0 is the head of its conversation; None once ended."""
    reply: str | None = None
    incomplete: str | None = None
    """Why the reply is cut short: `max_output_tokens`."""
    degraded: Degraded | None = None
    """Why the reply is no model's answer to this message: the budget does not allow one, or no provider gave one. It is
    a kept answer to the same question, or a sentence that says so."""
    cache: str | None = None
    """`exact`: the reply was there already, from the same question asked before."""
    context: dict[str, Any] | None = None
    """What the reply was made without. `recall`: `words_only` (no search by meaning) or `none`, and `why`; `left_out`:
    earlier messages there was no room for; `cut`: the message itself was shown without its middle. Null: nothing."""
    error: JobError | None = None
    usage: Usage | None = None
    cost_nano_usd: int | None = None
    metadata: dict[str, Any] = {}  # msgspec copies an empty default
    asked: Asked | None = None
    """What a request in OpenAI's form said beyond the message."""
    forgotten: bool = False
    """Not shown as a response any more, by its caller's wish; it stays a job."""

    @property
    def over(self) -> bool:
        """Nothing more will become of it. A merged job waits for the one that answers for it."""
        return self.state.ended and not (self.state is JobState.MERGED and self.finished_us is None)

    def resource(self) -> dict[str, Any]:
        """The JSON object of `GET /v1/jobs/{id}`."""
        return {
            "id": self.id,
            "object": "job",
            "state": self.state.value,
            "merged_into": self.merged_into,
            "agent": self.agent,
            "conversation_id": self.conversation_id,
            "user_id": self.user_id,
            "reply": self.reply,
            "incomplete": self.incomplete,
            "degraded": self.degraded,
            "cache": self.cache,
            "context": self.context,
            "error": None if self.error is None else msgspec.to_builtins(self.error),
            "attempts": self.attempts,
            "position": self.position,
            "usage": None if self.usage is None else _usage_resource(self.usage),
            "cost_usd": None if self.cost_nano_usd is None else usd(self.cost_nano_usd),
            "created_at": rfc3339(self.created_us),
            "started_at": None if self.started_us is None else rfc3339(self.started_us),
            "finished_at": None if self.finished_us is None else rfc3339(self.finished_us),
            "metadata": self.metadata,
        }


def _usage_resource(usage: Usage) -> dict[str, int]:
    return {**msgspec.to_builtins(usage), "total_tokens": usage.input_tokens + usage.output_tokens}


def _degraded(value: bytes | None) -> Degraded | None:
    return "budget" if value == b"budget" else "providers" if value == b"providers" else None


def from_hash(job_id: str, fields: dict[bytes, bytes], position: int | None) -> JobRecord:
    """The record from its Redis hash (`keys.job`); fields are UTF-8 text, `usage`, `error` and `metadata` JSON."""

    def text(name: bytes) -> str | None:
        return None if (value := fields.get(name)) is None or value == b"" else value.decode()

    def number(name: bytes) -> int | None:
        return None if not (value := fields.get(name)) else int(value)

    state = JobState(fields[b"state"].decode())
    reply = fields.get(b"reply")
    error, usage, metadata = fields.get(b"error"), fields.get(b"usage"), fields.get(b"metadata")
    asked, context = fields.get(b"asked"), fields.get(b"context")
    return JobRecord(
        id=job_id,
        tenant=fields[b"tenant"].decode(),
        agent=fields[b"agent"].decode(),
        conversation_id=fields[b"conv"].decode(),
        user_id=text(b"user"),
        state=state,
        merged_into=text(b"merged_into"),
        created_us=int(fields[b"created_us"]),
        started_us=number(b"started_us"),
        finished_us=number(b"finished_us"),
        run=number(b"run") or 1,
        attempts=number(b"attempts") or 0,
        position=None if state.ended else position,
        reply=None if reply is None else reply.decode(),
        incomplete=text(b"incomplete"),
        degraded=_degraded(fields.get(b"degraded")),
        cache=text(b"cache"),
        context=msgspec.json.decode(context) if context else None,
        error=msgspec.json.decode(error, type=JobError) if error else None,
        usage=msgspec.json.decode(usage, type=Usage) if usage else None,
        cost_nano_usd=number(b"cost_nano_usd"),
        metadata=msgspec.json.decode(metadata) if metadata else {},
        asked=msgspec.json.decode(asked, type=Asked) if asked else None,
        forgotten=b"forgotten" in fields,
    )


def usd(nano_usd: int) -> str:
    """Exact decimal dollars of an integer amount of nano-USD: `123450` → `"0.000123450"`."""
    sign = "-" if nano_usd < 0 else ""
    whole, rest = divmod(abs(nano_usd), 1_000_000_000)
    return f"{sign}{whole}.{rest:09d}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(unix_us: int) -> str:
    """RFC 3339 in UTC with microseconds: `2026-11-21T07:30:00.000001Z`."""
    second, us = divmod(unix_us, 1_000_000)
    return f"{_to_the_second(second)}.{us:06d}Z"


@lru_cache(maxsize=256)  # most times that are shown are of the last few seconds
def _to_the_second(unix_s: int) -> str:
    return (_EPOCH + timedelta(seconds=unix_s)).isoformat()[:-6]
