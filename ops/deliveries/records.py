"""An endpoint and a delivery as the books have them, and as people are shown them. Times are Unix µs."""

from typing import Any, Literal, TypeAlias

import msgspec

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
    kind: Literal["webhook", "slack", "email"]
    event_type: str
    url: str
    """For e-mail the addressee."""
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

    def resource(self) -> dict[str, Any]:
        return _resource(self, "delivery")


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request that is over. `unknown`: our process ended meanwhile, and it may have arrived."""

    attempt: int
    ended_us: int
    outcome: Literal["delivered", "failed", "unknown"]
    status: int | None
    code: str | None
    message: str | None
    latency_ms: float | None


class DeliveryDetail(Delivery, frozen=True, kw_only=True):
    format: Format
    body: dict[str, Any]
    log: list[LogEntry]

    def resource(self) -> dict[str, Any]:
        shown = _resource(self, "delivery")
        del shown["body"]
        return {**shown, "event": event_of(self), "log": [_shown(entry) for entry in self.log]}


class NewSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The only moment at which a secret is shown."""

    secret: str
    overlap_s: int
    """For so long those before sign as well."""

    def resource(self) -> dict[str, Any]:
        return {"object": "signing_secret", "secret": self.secret, "overlap_s": self.overlap_s}


def _resource(row: msgspec.Struct, kind: str) -> dict[str, Any]:
    shown = _shown(row)
    return {"id": shown.pop("id"), "object": kind, **shown}


def _shown(row: msgspec.Struct) -> dict[str, Any]:
    """Each `*_us` becomes an RFC 3339 `*_at`."""
    shown: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(row).items():
        if name.endswith("_us"):
            shown[f"{name[:-3]}_at"] = None if value is None else rfc3339(value)
        else:
            shown[name] = value
    return shown
