"""What an error is answered with: `application/problem+json`, or OpenAI's form of it on its routes.

The applications install `respond` for our errors and Starlette's; the request log calls it for surprises.
"""

from typing import Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ingress.openai.errors import as_openai, openai_body, speaks_openai
from ingress.problems import problem_body, problem_of
from shared.errors import SwitchboardError
from shared.telemetry import context

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


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


EXCEPTION_HANDLERS: dict[Any, Any] = {SwitchboardError: respond, HTTPException: respond}
