"""Around every request: its id, its trace, one wide log line, its numbers, and an answer to something unforeseen.

Pure ASGI, outermost but for Starlette's own. The line never holds a query string (read tokens), a body or a key.
Fields that the routes bind to the context (`tenant`, `job_id`, `problem` …) are on it. A probe or a scrape that went
well is counted like the rest, but has no line. `ingress.plain` does the same for what never comes here; what it hands
over brings its `request_id`, `started_ns` and `trace` in the scope.
"""

import re
import time
from collections.abc import Mapping

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ingress import metrics
from ingress.answering import Answering
from ingress.refusing import respond
from ingress.requests import first_headers, header
from shared.ids import uuid7
from shared.telemetry import context, logs, tracing

log = structlog.get_logger(__name__)

MAX_PATH_CHARS = 200
ROUTINE = frozenset({"/health/live", "/health/ready", "/health/stack", "/metrics"})
"""Asked for every few seconds, by platforms and Prometheus: a line each would be most of a quiet log."""
PATH_PARTS = 2
"""Of a path that has no route: what follows may name somebody, as in `/v1/users/ada@example.com`, the console's."""
_USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestLog:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_ns = scope.get("started_ns") or time.perf_counter_ns()
        request_id = scope["request_id"] = scope.get("request_id") or request_id_of(first_headers(scope))
        answering = Answering(send, request_id)
        context.begin(request_id=request_id)
        metrics.in_progress.now += 1
        # A trace is of a message: what only reads is not worth one.
        trace: tracing.Trace | None = scope.get("trace")
        if trace is None and scope["method"] == "POST":
            trace = tracing.of_request(header(scope, b"traceparent"))
        with tracing.root(trace, "http.server", scope["method"]) as span:
            scope["span"] = span
            try:
                await self.app(scope, receive, answering)
            except ClientDisconnect:
                pass  # nobody to answer
            except Exception as error:
                if answering.status:  # it is too late for another answer; the server cuts the connection
                    raise
                response = await respond(Request(scope), error)
                await response(scope, receive, answering)
            finally:
                _conclude(scope, answering.status, (time.perf_counter_ns() - started_ns) / 1e9)


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's, else a new one."""
    given = headers.get(b"x-request-id")
    text = given and given.decode("latin-1")
    return text if text and _USABLE_ID.fullmatch(text) else uuid7()


def _conclude(scope: Scope, status: int, seconds: float) -> None:
    method, route = scope["method"], metrics.route_of(scope)
    if scope["span"].recorded:
        scope["span"].name(f"{method} {route}", request_id=scope["request_id"], status=status)
    metrics.in_progress.now -= 1
    metrics.count_request(route, method, status, seconds)
    write = log.debug if status == 200 and route in ROUTINE else logs.wide
    lost = {"path": _begun(scope["path"])} if route == metrics.UNMATCHED else {}  # else the ids say it
    write(
        "request",
        method=method,
        route=route,
        **lost,
        status=status or None,  # None: the client went away before it was answered
        duration_ms=round(seconds * 1000, 3),
    )


def _begun(path: str) -> str:
    parts = path.split("/")
    return "/".join([*parts[: PATH_PARTS + 1], *(["…"] if len(parts) > PATH_PARTS + 1 else [])])[:MAX_PATH_CHARS]
