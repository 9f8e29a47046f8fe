"""The document itself: routes and descriptions joined, every answer completed.

`build` takes a few tens of milliseconds and is called once per process at most. Routes without a description, and the
other way round, are left out; `undescribed` names them, for a test.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from starlette.routing import BaseRoute, Route

from ingress.openapi.answers import PROBLEM_SCHEMA, as_response, openai_responses, problem_responses, with_headers
from ingress.openapi.describe import Api, Operation, Parameter
from ingress.openapi.refusals import refusals
from ingress.problems import problem_of
from shared.config import Settings
from shared.errors import Unavailable

Endpoints = Mapping[tuple[str, str], Any]
"""What serves a method and a path."""

_METHODS = ("get", "post", "put", "patch", "delete")
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "read_token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The token of a job's `events_url`: it opens this one job, for reading.",
    },
}


def endpoints(routes: Sequence[BaseRoute]) -> Endpoints:
    """Every method and path that is served. HEAD is not listed: each GET has it."""
    found = {}
    for route in routes:
        if isinstance(route, Route):
            for method in _methods(route):
                served = getattr(route.endpoint, method.lower(), route.endpoint)
                found[method, route.path] = served
    return found


def undescribed(api: Api, routes: Sequence[BaseRoute]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Routes without a description, descriptions without a route."""
    served, described = set(endpoints(routes)), set(api.operations)
    return served - described, described - served


def build(api: Api, routes: Sequence[BaseRoute], settings: Settings) -> dict[str, Any]:
    """The OpenAPI 3.1 document, as JSON types."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), endpoint in endpoints(routes).items():
        if operation := api.operations.get((method, path)):
            paths.setdefault(path, {})[method.lower()] = _operation(api, operation, endpoint)
    used = {name for operation in api.operations.values() for name in operation.security}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": api.title,
            "version": version("switchboard"),
            "summary": api.summary,
            "description": api.description,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in api.tags.items()],
        "paths": paths,
        "components": {
            "schemas": {**api.components(settings), "Problem": PROBLEM_SCHEMA},
            "securitySchemes": {name: scheme for name, scheme in _SECURITY.items() if name in used},
        },
    }


def _methods(route: Route) -> Iterator[str]:
    if route.methods is None:  # an HTTPEndpoint has a method per method
        yield from (name.upper() for name in _METHODS if hasattr(route.endpoint, name))
    else:
        yield from sorted(route.methods - {"HEAD"})


def _operation(api: Api, operation: Operation, endpoint: Any) -> dict[str, Any]:
    secured = list(api.secured_by) if operation.security else []
    problems = refusals(endpoint, *operation.raised_by, *secured) + [problem_of(error) for error in operation.raises]
    if operation.security:  # whoever is known through Redis or Postgres meets their outages
        problems.append(problem_of(Unavailable("", retry_after_s=1)))
    problems.append(problem_of(RuntimeError()))
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "security": [{name: []} for name in operation.security],
        "parameters": [_parameter(each) for each in operation.parameters],
    }
    if operation.scope:
        described["description"] += f"\n\nNeeds the scope `{operation.scope}`."
    if operation.body:
        examples = {name: {"value": value} for name, value in operation.body.examples.items()}
        content = {"application/json": {"schema": operation.body.schema, "examples": examples}}
        described["requestBody"] = {"required": operation.body.required, "content": content}
    answers = {str(status): as_response(answer) for status, answer in operation.answers.items()}
    refused = openai_responses(problems) if operation.errors == "openai" else problem_responses(problems)
    responses = {**refused, **answers}
    described["responses"] = {
        status: with_headers(response, operation.headers) for status, response in sorted(responses.items())
    }
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    shown = {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }
    return shown if parameter.example is None else {**shown, "example": parameter.example}
