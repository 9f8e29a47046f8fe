"""What a person says about an operation: the vocabulary of the tables in `ingress.openapi.operations` and the console.

Schemas are plain JSON Schema (2020-12); `ref` names one of the document's components.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.config import Settings

Schema = dict[str, Any]
Components = Callable[[Settings], Mapping[str, Schema]]
"""The document's schemas; some limits are settings, so that a deployment's document states its own."""

JSON = "application/json"
PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def record(properties: Mapping[str, Schema], **keywords: Any) -> Schema:
    """An object that has all of these."""
    return {"type": "object", "properties": dict(properties), "required": list(properties), **keywords}


def listing(item: Schema, **more: Schema) -> Schema:
    return record({"object": {"const": "list"}, "data": {"type": "array", "items": item}, **more})


def event(kind: str, data: Schema) -> Schema:
    """A server-sent event whose data is JSON. The schema of a `text/event-stream` is that of one of its events."""
    words = {"description": data["description"]} if "description" in data else {}
    carried = {"type": "string", "contentMediaType": JSON, "contentSchema": data}
    members: dict[str, Schema] = {"id": {"type": "string"}, "event": {"const": kind}, "data": carried}
    return {"type": "object", "properties": members, "required": ["event", "data"], **words}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    name: str
    where: Literal["path", "query", "header"]
    description: str
    schema: Schema
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class Header:
    description: str
    schema: Schema
    always: bool = True
    """Whether every answer of this kind has it."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A JSON request body."""

    schema: Schema
    examples: Mapping[str, Any]
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer that is not a problem. `schema` None: no content."""

    description: str
    schema: Schema | None = None
    media_type: str = JSON
    headers: Mapping[str, Header] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, Schema] = field(default_factory=dict)
    or_stream_of: Schema | None = None
    """One server-sent event of the stream that is answered with where the request asks for one."""


Security = Literal["bearer", "read_token"]


@dataclass(frozen=True, kw_only=True)
class Operation:
    id: str
    tag: str
    summary: str
    description: str
    answers: Mapping[int, Answer]
    security: Sequence[Security] = ()
    """Any one of these; none: open to everybody."""
    scope: str = ""
    """What the API key must be allowed to do."""
    parameters: Sequence[Parameter] = ()
    body: Body | None = None
    raised_by: Sequence[Callable[..., Any]] = ()
    """Further places whose errors callers get; those that the endpoint itself can reach are found without it."""
    raises: Sequence[Exception] = ()
    """Errors that no source shows so."""
    errors: Literal["problem", "openai"] = "problem"
    """The form they have."""
    headers: Mapping[str, Header] = field(default_factory=dict)
    """Those that any of its answers may carry, refusals too."""


@dataclass(frozen=True, kw_only=True)
class Api:
    """An application, described."""

    title: str
    summary: str
    description: str
    tags: Mapping[str, str]
    operations: Mapping[tuple[str, str], Operation]
    """By method and path."""
    components: Components
    secured_by: Sequence[Callable[..., Any]]
    """Where a secured operation authenticates its caller."""
