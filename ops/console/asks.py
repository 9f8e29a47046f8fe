"""What the console's requests may say: query strings and bodies become checked values, or all their faults at once.

Cursors are opaque to callers: base64url of the JSON that the books go on after.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request

from ingress.body import whole
from ingress.requests import read_body
from ops.dead.books import DeadFilter, Position, dead_filter
from ops.dead.edit import Edit
from shared.errors import InvalidRequest

Age = Annotated[float, Field(ge=0, le=1e9)]
Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
"""Postgres has no NUL in texts."""
M = TypeVar("M", bound=BaseModel)
C = TypeVar("C")


class Filters(BaseModel):
    """Ages count from the end of the job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Word | None = None
    agent: Word | None = None
    error_code: Word | None = None
    state: Literal["dead", "expired", "rejected"] | None = None
    older_than_s: Age | None = None
    newer_than_s: Age | None = None

    def to_filter(self, tenant: str | None, disposition: str) -> DeadFilter:
        """`tenant` is the one the visitor may see, which decides."""
        return dead_filter(
            tenant=tenant,
            agent=self.agent,
            error_code=self.error_code,
            state=self.state,
            disposition=disposition,
            older_than_s=self.older_than_s,
            newer_than_s=self.newer_than_s,
        )


class OneQuery(BaseModel):
    """For one job; parameters it does not know are ignored."""

    model_config = ConfigDict(frozen=True)

    tenant: Word | None = None


class ListQuery(Filters):
    disposition: Literal["open", "retried", "discarded", "any"] = "open"
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Word | None = None


class EditBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    message: str | None = None
    agent: str | None = None
    metadata: dict[str, Any] | None = None

    def to_edit(self) -> Edit:
        return Edit(message=self.message, agent=self.agent, metadata=self.metadata)


class RetryBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    position: Position = "end"
    edit: EditBody = EditBody()


class BulkBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    filter: Filters = Filters()
    position: Position = "end"
    limit: Annotated[int, Field(ge=1, le=100), BeforeValidator(whole)] = 25
    """Jobs of this call; the caller paces the whole by how often it calls."""
    cursor: Word | None = None


def list_query(request: Request) -> ListQuery:
    """Raises InvalidRequest."""
    return _validated(ListQuery, dict(request.query_params))


def query_of(request: Request, model: type[M]) -> M:
    """Raises InvalidRequest."""
    return _validated(model, dict(request.query_params))


def asked_tenant(request: Request) -> str | None:
    """The tenant that an operator narrows a request for one job to. Raises InvalidRequest."""
    return _validated(OneQuery, dict(request.query_params)).tenant


async def body_of(request: Request, model: type[M], max_bytes: int) -> M:
    """An empty body is an empty object. Raises InvalidRequest or TooLarge."""
    raw = await read_body(request, max_bytes)
    try:
        parsed = msgspec.json.decode(raw) if raw.strip() else {}
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    return _validated(model, parsed)


def cursor_of(value: Mapping[str, Any] | str) -> str:
    return urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=").decode()


def after_cursor(cursor: str | None, kind: type[C]) -> C | None:
    """Inverse of `cursor_of`. Raises InvalidRequest for a cursor that we never gave."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        fault = {"field": "cursor", "message": "must be a `next_cursor` of this list"}
        raise InvalidRequest("The request has faults; `errors` lists all of them.", faults=[fault]) from None


def _validated(model: type[M], given: Any) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = [
            {"field": "/".join(str(part) for part in item["loc"]), "message": item["msg"]}
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidRequest("The request has faults; `errors` lists all of them.", faults=faults) from None
