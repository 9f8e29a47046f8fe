"""Errors become `application/problem+json` (RFC 9457) here and nowhere else, or OpenAI's form of it on its routes.

The app installs `respond` for our errors and Starlette's; the request log calls it for surprises, which become a 500
without internals. `type` is `/problems/<code>`, stable per code; `request_id` finds the log line.
"""

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ingress.openai.errors import as_openai, openai_body, speaks_openai
from shared.errors import (
    BudgetExhausted,
    CallerError,
    InvalidRequest,
    NotFound,
    QueueFull,
    RateLimited,
    SwitchboardError,
    Unanswered,
    Unavailable,
)
from shared.jobs import rfc3339
from shared.telemetry import context

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_ROUTER_CODES = {404: "not_found", 405: "method_not_allowed"}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller is told; `headers` travel beside the body."""

    status: int
    code: str
    detail: str
    errors: list[dict[str, str]] = []
    members: dict[str, str] = {}
    """Further members of the body (RFC 9457 §3.2)."""
    headers: dict[str, str] = {}
    param: str | None = None
    """The one parameter that is at fault."""


def problem_of(error: Exception) -> Problem:
    """Every error as a problem. An error that is nobody's on purpose tells nothing of itself."""
    match error:
        case HTTPException():
            code = _ROUTER_CODES.get(error.status_code, "http_error")
            return Problem(
                status=error.status_code, code=code, detail=_router_detail(error), headers=dict(error.headers or {})
            )
        case InvalidRequest():
            return Problem(status=error.status, code=error.code, detail=str(error), errors=error.faults)
        case CallerError():
            return Problem(
                status=error.status,
                code=error.code,
                detail=str(error),
                headers=dict(error.headers),
                members=_members(error),
                param=error.param,
            )
        case Unanswered():
            return Problem(status=error.status, code=error.code, detail=str(error), headers=dict(error.headers))
        case Unavailable():
            # Which server, and where, is for our log. A full queue is the caller's business.
            detail = str(error) if isinstance(error, QueueFull) else "Something we need cannot be reached; try again."
            return Problem(
                status=503, code=error.code, detail=detail, headers={"retry-after": str(error.retry_after_s)}
            )
        case _:
            return Problem(status=500, code="internal_error", detail="Something went wrong on our side.")


def _members(error: CallerError) -> dict[str, str]:
    match error:
        case RateLimited():
            return {"level": error.level}
        case BudgetExhausted(resets_at_s=int(resets_at_s)):
            return {"scope": error.scope, "resets_at": rfc3339(resets_at_s * 1_000_000)}
        case BudgetExhausted():
            return {"scope": error.scope}
    return {}


async def respond(request: Request, error: Exception) -> Response:
    """The answer for `error`; the request log learns its code, and of a surprise the traceback.

    A route leaves headers for whatever its answer will be in the scope, as `answer_headers`.
    """
    problem = problem_of(error)
    context.bind(problem=problem.code)
    if problem.status == 500:
        log.error("request_failed", exc_info=error)
    elif problem.status == 503:
        log.warning("request_refused", reason=str(error))
    headers = request.scope.get("answer_headers", {})
    if speaks_openai(request.url.path):
        told = as_openai(problem)
        content, headers = msgspec.json.encode(openai_body(told)), {**headers, **told.headers}
        return Response(content, told.status, headers, "application/json")
    body = problem_body(problem, instance=request.url.path, request_id=request.scope.get("request_id"))
    return Response(msgspec.json.encode(body), problem.status, {**headers, **problem.headers}, MEDIA_TYPE)


def problem_body(problem: Problem, *, instance: str, request_id: str | None) -> dict[str, Any]:
    """What stands in the answer; the API document shows it too."""
    body: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": instance,
        "request_id": request_id,
    }
    body |= problem.members
    if problem.errors:
        body["errors"] = problem.errors
    return body


def unknown_job() -> NotFound:
    """One answer for a job that never was, one of another tenant, and an id that is none."""
    return NotFound("There is no such job.")


def _router_detail(error: HTTPException) -> str:
    match error.status_code:
        case 404:
            return "There is nothing at this path."
        case 405:
            return "This path does not take this method; `Allow` lists those it takes."
        case _:
            return str(error.detail)


EXCEPTION_HANDLERS: dict[Any, Any] = {SwitchboardError: respond, HTTPException: respond}
