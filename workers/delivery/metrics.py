"""What a delivery process counts."""

from prometheus_client import Counter, Histogram

from shared.telemetry.metrics import QUICK_S, REGISTRY, child
from workers.delivery.outcome import Delivered, Outcome

_attempts = Counter("switchboard_delivery_attempts", "Attempts that are over.", ["kind", "outcome"], registry=REGISTRY)
_duration = Histogram(
    "switchboard_delivery_attempt_seconds", "One attempt.", ["kind"], registry=REGISTRY, buckets=QUICK_S
)


def observe(kind: str, outcome: Outcome, latency_s: float) -> None:
    child(_attempts, kind, "delivered" if isinstance(outcome, Delivered) else outcome.code).inc()
    child(_duration, kind).observe(latency_s)
