"""Around every request: its id, one wide log line, and an answer when something unforeseen happens.

Pure ASGI, outermost but for Starlette's own. The line never holds a query string (read tokens), a body or a key.
Fields that the routes bind to the context (`tenant`, `job_id`, `problem` …) are on it.
"""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingress.problems import respond
from shared.ids import uuid7

log = structlog.get_logger(__name__)

_USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestLog:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_ns, status = time.perf_counter_ns(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = given if _USABLE_ID.fullmatch(given) else uuid7()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = scope["request_id"]
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # nobody to answer
        except Exception as error:
            if status:  # it is too late for another answer; the server cuts the connection
                raise
            response = await respond(Request(scope), error)
            await response(scope, receive, send_with_id)
        finally:
            duration_ms = (time.perf_counter_ns() - started_ns) / 1e6
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status or None,  # None: the client went away before it was answered
                duration_ms=round(duration_ms, 3),
            )
