"""What ingress and console count per request. Their cost is part of every message: a few microseconds.

Called by the request log and by the message route; `shared.telemetry.metrics` shows them.
"""

from prometheus_client import Gauge
from starlette.types import Scope

from shared.telemetry.counts import Counts, Durations, Level
from shared.telemetry.metrics import QUICK_S, REGISTRY

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_requests = Counts(
    "switchboard_http_requests",
    "Requests that are over; status 0: the caller had gone before it was answered.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
_durations = Durations(
    "switchboard_http_request_duration_seconds",
    "From the first byte in to the last byte out; of streams and long polls their whole life.",
    ["route", "method"],
    bounds_s=QUICK_S,
    registry=REGISTRY,
)
in_progress = Level("switchboard_http_requests_in_progress", "Requests not over yet.", registry=REGISTRY)
_admissions = Counts(
    "switchboard_admissions", "Messages by what became of them.", ["agent", "outcome"], registry=REGISTRY
)
admission_closed = Gauge(
    "switchboard_admission_closed", "1 while Redis has no room and messages get 503.", registry=REGISTRY
)


def route_of(scope: Scope) -> str:
    """The template of the path, never the path: its ids would make a series each."""
    route = scope.get("route")
    return UNMATCHED if route is None else str(route.path)


def count_request(route: str, method: str, status: int, seconds: float) -> None:
    shown = method if method in _METHODS else "other"
    _requests.of[route, shown, str(status)] += 1
    _durations.observe((route, shown), seconds)


def count_admission(agent: str, outcome: str) -> None:
    """`agent` is a registered one."""
    _admissions.of[agent, outcome] += 1
