"""What a delivery process counts."""

from prometheus_client import Counter, Histogram

from shared.telemetry.metrics import QUICK_S, REGISTRY, child
from workers.delivery.outcome import Delivered, Outcome
from workers.replies.outcome import ReplyEnd

_attempts = Counter("switchboard_delivery_attempts", "Attempts that are over.", ["kind", "outcome"], registry=REGISTRY)
_duration = Histogram(
    "switchboard_delivery_attempt_seconds", "One attempt.", ["kind"], registry=REGISTRY, buckets=QUICK_S
)


def named(outcome: Outcome | ReplyEnd) -> str:
    """Of a reply its state: its code may be any of its provider's."""
    if isinstance(outcome, ReplyEnd):
        return "put_off" if outcome.put_off else outcome.state
    return "delivered" if isinstance(outcome, Delivered) else outcome.code


def observe(kind: str, outcome: Outcome | ReplyEnd, latency_s: float) -> None:
    child(_attempts, kind, named(outcome)).inc()
    child(_duration, kind).observe(latency_s)
