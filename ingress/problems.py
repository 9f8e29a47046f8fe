"""Errors become problems (RFC 9457) here and nowhere else; `ingress.refusing` answers with them.

A surprise becomes a 500 without internals. `type` is `/problems/<code>`, stable per code; `request_id` finds the log
line.
"""

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from shared.errors import (
    BudgetExhausted,
    CallerError,
    InvalidRequest,
    NotFound,
    QueueFull,
    RateLimited,
    Unanswered,
    Unavailable,
)
from shared.jobs import rfc3339

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
