"""A problem in the form that OpenAI's SDKs read: `{"error": {message, type, param, code}}`.

Statuses are OpenAI's where programs branch on them: faults of a body are 400, a spent budget is 429 with the code
`insufficient_quota`, which the SDK would try again if we did not tell it otherwise.
"""

import re
from typing import Any

from msgspec.structs import replace

from ingress.problems import Problem

PATHS = ("/v1/responses", "/v1/chat/completions", "/v1/models")

_NO_RETRY = {"x-should-retry": "false"}
_CODES = {
    "unauthorized": "invalid_api_key",
    "forbidden": "insufficient_permissions",
    "rate_limited": "rate_limit_exceeded",
    "upstream_rate_limited": "rate_limit_exceeded",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_INDEX = re.compile(r"\.(\d+)(?=\.|$)")


def speaks_openai(path: str) -> bool:
    """Whether what is asked for at this path is answered in OpenAI's form."""
    return any(path == start or path.startswith(f"{start}/") for start in PATHS)


def as_openai(problem: Problem) -> Problem:
    """The same with OpenAI's status, code and headers."""
    if problem.code == "budget_exhausted":
        return replace(problem, status=429, code="insufficient_quota", headers={**problem.headers, **_NO_RETRY})
    if problem.errors:
        first = problem.errors[0]
        code = first.get("code", "invalid_value")
        return replace(problem, status=400, code=code, param=_param(first["field"]) or None, detail=_all(problem))
    return replace(problem, code=_CODES.get(problem.code, problem.code))


def openai_body(problem: Problem) -> dict[str, Any]:
    return {
        "error": {
            "message": problem.detail,
            "type": _type(problem),
            "param": problem.param,
            "code": problem.code,
        }
    }


def _type(problem: Problem) -> str:
    if problem.code == "insufficient_quota":
        return "insufficient_quota"
    return "server_error" if problem.status >= 500 else _TYPES.get(problem.status, "invalid_request_error")


def _all(problem: Problem) -> str:
    """Every fault in one sentence each: the form has room for one parameter only."""
    return " ".join(f"{_param(fault['field']) or 'The body'}: {fault['message']}." for fault in problem.errors)


def _param(field: str) -> str:
    """`messages/0/content` as OpenAI writes it: `messages[0].content`."""
    return _INDEX.sub(r"[\1]", field.replace("/", ".")).replace("~1", "/").replace("~0", "~")
