"""What crosses Redis between ingress and workers: the payload of a turn, and the events of a job.

Both are JSON. The payload is arq's own job dictionary (`t` try, `f` function, `a` args, `k` kwargs, `et` enqueue ms),
so that a stock arq client reads it; the turn is its one keyword argument.
"""

from enum import StrEnum
from typing import Any, Literal

import msgspec

Policy = Literal["queue", "merge", "interrupt", "reject"]
"""What becomes of a message whose conversation has unfinished ones: it waits; those that wait and were not started are
answered together with it; it takes their place and stops the one that runs; it is refused."""

MAX_MERGE_WINDOW_S = 10.0
"""How long messages that are to be answered together may wait for each other, from the first one on."""

TURN_FUNCTION = "turn"
"""Name of the arq function that runs a chat turn."""


class Said(msgspec.Struct, frozen=True):
    """A message that a caller gives along, as context of its question."""

    role: Literal["user", "assistant"]
    content: str


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a request in OpenAI's form says beyond the message: what the turn needs of it, and what is shown again."""

    api: Literal["responses", "chat"] = "responses"
    instructions: str | None = None
    """Of the caller, for this turn; they stand behind the agent's own."""
    max_output_tokens: int | None = None
    given: list[Said] = []
    """Said before the message, and not by earlier turns of ours; oldest first."""
    background: bool = False
    previous_response_id: str | None = None
    branched: int = 0
    """So many of `given`, the first ones, were said before the previous response, from which a branch was made."""

    def shown(self) -> "Asked":
        """The part that every reader of the job is shown."""
        return msgspec.structs.replace(self, given=[])

    def kept(self) -> "Asked":
        """The part that is written with the conversation. A chat's caller sends all of it again each time."""
        return msgspec.structs.replace(self, given=[], instructions=None) if self.api == "chat" else self


class TurnPayload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One user message on its way to an agent. Ids and texts are as the caller gave them, already validated."""

    job_id: str
    tenant: str
    agent: str
    conversation_id: str
    message: str
    user_id: str | None = None
    queue: str = "default"
    metadata: dict[str, Any] = {}  # msgspec copies an empty default
    callback_url: str | None = None
    domain: str | None = None
    feature: str | None = None
    before: list[str] = []
    """Texts that belong to the question, in a later run of a job into which others were merged."""
    asked: Asked | None = None
    """Of a request in OpenAI's form."""
    trace: dict[str, str] = {}
    """W3C trace context headers of the request, for telemetry."""
    request_id: str | None = None
    """Of the request that brought the message, for the log."""


class _Kwargs(msgspec.Struct, frozen=True):
    payload: TurnPayload


class _ArqJob(msgspec.Struct, frozen=True):
    k: _Kwargs
    f: str = TURN_FUNCTION
    a: tuple[()] = ()
    t: int | None = None
    et: int = 0


_encoder = msgspec.json.Encoder()
_arq_job_decoder = msgspec.json.Decoder(_ArqJob)


def encode_turn(payload: TurnPayload, *, enqueued_ms: int) -> bytes:
    """The value of `arq:job:<id>` for a turn. `enqueued_ms` is Unix ms; only arq's own logs look at it."""
    return _encoder.encode(_ArqJob(k=_Kwargs(payload), et=enqueued_ms))


def decode_turn(raw: bytes) -> TurnPayload:
    """Inverse of `encode_turn`. Raises msgspec.MsgspecError (a ValueError) when it cannot be read."""
    return _arq_job_decoder.decode(raw).k.payload


class EventType(StrEnum):
    """Server-sent events of a job, in the order they can come."""

    STARTED = "job.started"
    """An attempt began: `{"attempt": 1}`."""
    DELTA = "message.delta"
    """More of the reply: `{"delta": "…"}`."""
    RESET = "attempt.reset"
    """Text shown so far is void, another attempt follows: `{"attempt": 2}`."""
    RETRYING = "job.retrying"
    """The attempt failed and will be repeated: `{"retry_in_ms": …, "error": {…}}`."""
    ENDED = "job.ended"
    """The job reached a terminal state; on the wire it is `job.<state>` and carries the job resource."""


class Event(msgspec.Struct, frozen=True):
    """One entry of a job's event stream. `data` is a JSON object as text."""

    seq: int
    type: str
    data: str
