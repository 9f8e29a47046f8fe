"""Answers as OpenAPI's response objects: those that were described, and the problems of each status.

Every answer carries `X-Request-ID`. A problem's headers and body are those that `ingress.problems` really sends.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any, get_args

from ingress.openai.errors import as_openai, openai_body
from ingress.openapi.describe import EVENTS, JSON, PROBLEM, Answer, Header, Schema, ref
from ingress.problems import Problem, problem_body
from shared.budgets import ScopeKind
from shared.rates import Level

_REQUEST_ID = Header(
    description="Names this request in our logs: the caller's `X-Request-ID`, where it sent a usable one.",
    schema={"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
)
_PROBLEM_HEADERS = {
    "retry-after": Header(description="Seconds after which to try again.", schema={"type": "integer", "minimum": 0}),
    "www-authenticate": Header(description="The scheme to authenticate with.", schema={"type": "string"}),
    "x-should-retry": Header(
        description="`false` keeps an SDK from trying again by itself.", schema={"type": "string"}
    ),
}
_OTHER = Header(description="", schema={"type": "string"})
PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "`/problems/<code>`; stable, made for programs."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for a person."},
        "instance": {"type": "string", "description": "The path that was asked for."},
        "request_id": {"type": "string", "description": "Names this request in our logs."},
        "level": {
            "type": "string",
            "description": "Of `rate_limited`: which window is full.",
            "enum": list(get_args(Level)),
        },
        "scope": {
            "type": "string",
            "description": "Of `budget_exhausted`: which budget is spent.",
            "enum": list(get_args(ScopeKind)),
        },
        "resets_at": {
            "type": "string",
            "format": "date-time",
            "description": "Of `budget_exhausted`: when its period is over, where it has one.",
        },
        "errors": {
            "type": "array",
            "description": "Every fault of the request, where it has faults.",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string", "description": "A JSON pointer without its leading slash."},
                    "message": {"type": "string"},
                },
                "required": ["field", "message"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
}


def as_response(answer: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.description, "headers": _headers(answer.headers)}
    if answer.schema is not None:
        content: dict[str, Any] = {"schema": answer.schema}
        if answer.examples:
            content["examples"] = {name: {"value": value} for name, value in answer.examples.items()}
        shown["content"] = {answer.media_type: content}
    if answer.or_stream_of is not None:
        shown["content"][EVENTS] = {"schema": answer.or_stream_of}
    if answer.links:
        shown["links"] = dict(answer.links)
    return shown


def _headers(headers: Mapping[str, Header]) -> dict[str, Any]:
    every = {**headers, "X-Request-ID": _REQUEST_ID}
    return {
        name: {"description": header.description, "required": header.always, "schema": header.schema}
        for name, header in every.items()
    }


def with_headers(response: dict[str, Any], headers: Mapping[str, Header]) -> dict[str, Any]:
    """The response object with more headers."""
    return {**response, "headers": {**_headers(headers), **response["headers"]}}


def problem_responses(problems: Sequence[Problem]) -> dict[str, Any]:
    return {
        status: _refusal(
            same,
            PROBLEM,
            {"allOf": [ref("Problem"), {"properties": {"type": {"enum": [f"/problems/{code}" for code in same]}}}]},
            {code: _example(problem) for code, problem in same.items()},
        )
        for status, same in _by_status(problems)
    }


def openai_responses(problems: Sequence[Problem]) -> dict[str, Any]:
    """The same in OpenAI's form."""
    return {
        status: _refusal(same, JSON, ref("OpenAIError"), {code: openai_body(problem) for code, problem in same.items()})
        for status, same in _by_status([as_openai(problem) for problem in problems])
    }


def _by_status(problems: Sequence[Problem]) -> Iterator[tuple[str, dict[str, Problem]]]:
    """Of each status the problems by code."""
    for status, same in groupby(sorted(problems, key=attrgetter("status")), attrgetter("status")):
        yield str(status), {problem.code: problem for problem in same}


def _refusal(
    problems: Mapping[str, Problem], media_type: str, schema: Schema, examples: Mapping[str, Any]
) -> dict[str, Any]:
    carried = [{name.lower() for name in problem.headers} for problem in problems.values()]
    headers = {
        name: replace(_PROBLEM_HEADERS.get(name, _OTHER), always=all(name in each for each in carried))
        for name in sorted(set().union(*carried))
    }
    return {
        "description": ", ".join(f"`{code}`" for code in problems),
        "headers": _headers(headers),
        "content": {
            media_type: {
                "schema": schema,
                "examples": {code: {"value": example} for code, example in examples.items()},
            }
        },
    }


def _example(problem: Problem) -> dict[str, Any]:
    return problem_body(problem, instance="/v1/\u2026", request_id="0192f0c1-7a3c-7e11-9b1e-2f6d7c1a0b42")
