"""An endpoint and a delivery as the books have them, and as people are shown them. Times are Unix µs."""

from typing import Any, Literal, TypeAlias

import msgspec

from ops.channels.records import Pause
from shared.jobs import rfc3339
from workers.delivery.books import Format
from workers.delivery.events import event_of

State: TypeAlias = Literal["pending", "sending", "retrying", "unknown", "parked", "delivered", "failed", "discarded"]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tenant's events go."""

    id: str
    tenant: str
    url: str
    description: str
    event_types: list[str]
    """Only these; an empty list is all of them."""
    format: Format
    """In which form it is sent them."""
    created_us: int
    created_by: str
    disabled_us: int | None
    disabled_why: Literal["asked", "gone", "failing"] | None
    """`gone`: it answered 410; `failing`: it failed for days without one success."""
    failures: int
    """Since its last success."""
    failing_since_us: int | None
    paused_until_us: int | None
    """Its breaker is open: nothing is sent until then."""
    secrets: int
    """How many secrets sign what it is sent: two or more while a rotation is under way."""

    def resource(self) -> dict[str, Any]:
        return _resource(self, "endpoint")


class DeliveryError(msgspec.Struct, frozen=True):
    code: str
    message: str
    status: int | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one target."""

    id: str
    """The `webhook-id`, the same at every attempt."""
    tenant: str
    kind: Literal["webhook", "slack", "email", "channel"]
    event_type: str
    url: str
    """For e-mail the addressee; of a reply through a messenger `channel://` and the channel's id."""
    endpoint_id: str | None
    job_id: str | None
    run: int | None
    conversation_id: str | None
    sequence: int
    """Its place in the events of its conversation."""
    state: State
    attempts: int
    due_us: int
    created_us: int
    finished_us: int | None
    error: DeliveryError | None
    paused: Pause | None = None
    """Of a reply: its channel is."""

    def resource(self) -> dict[str, Any]:
        return _resource(self, "delivery")


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that is over. `unknown`: our process or the connection ended meanwhile, and it may have arrived; code
    `resent`: a message that may have arrived was sent again. `put_off`: a limit, or a paused channel."""

    attempt: int
    ended_us: int
    outcome: Literal["delivered", "failed", "unknown", "put_off"]
    status: int | None
    code: str | None
    message: str | None
    latency_ms: float | None


class MessageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a messenger told of a message."""

    state: Literal["sent", "delivered", "read", "played", "failed"]
    at_us: int | None
    """By its own clock."""
    error: dict[str, Any] | None


class ReplyPart(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a reply."""

    part: int
    """From 1 on."""
    form: Literal["text", "template"]
    state: Literal["waiting", "sending", "unknown", "sent"]
    """`unknown`: it may have arrived."""
    resent: int
    """How often it was sent again though it may have arrived."""
    message_id: str | None
    """The messenger's."""
    began_us: int | None
    ended_us: int | None
    status: Literal["sent", "delivered", "read", "played", "failed"] | None
    """The furthest one that the messenger told."""
    statuses: list[MessageStatus]

    def resource(self) -> dict[str, Any]:
        return {**_shown(self), "statuses": [_shown(one) for one in self.statuses]}


class DeliveryDetail(Delivery, frozen=True, kw_only=True):
    format: Format
    body: dict[str, Any]
    log: list[LogEntry]
    parts: list[ReplyPart] = []
    """Of a reply through a messenger: its messages."""

    def resource(self) -> dict[str, Any]:
        shown = _resource(self, "delivery")
        del shown["body"]
        log, parts = [_shown(entry) for entry in self.log], [part.resource() for part in self.parts]
        return {**shown, "event": event_of(self), "log": log, "parts": parts}


class NewSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The only moment at which a secret is shown."""

    secret: str
    overlap_s: int
    """For so long those before sign as well."""

    def resource(self) -> dict[str, Any]:
        return {"object": "signing_secret", "secret": self.secret, "overlap_s": self.overlap_s}


def _resource(row: msgspec.Struct, kind: str) -> dict[str, Any]:
    shown = _shown(row)
    if isinstance(row, Delivery):
        shown["paused"] = None if row.paused is None else row.paused.resource()
    return {"id": shown.pop("id"), "object": kind, **shown}


def _shown(row: msgspec.Struct) -> dict[str, Any]:
    """Each `*_us` becomes an RFC 3339 `*_at`, and `at_us` becomes `at`."""
    shown: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(row).items():
        if name.endswith("_us"):
            shown[f"{name[:-3]}_at".removeprefix("at_")] = None if value is None else rfc3339(value)
        else:
            shown[name] = value
    return shown
