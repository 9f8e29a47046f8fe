"""What requests about endpoints and deliveries may say."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ingress.body import whole
from ops.console.asks import Word
from ops.deliveries.records import State
from workers.delivery.books import Format

EventType = Literal["job.succeeded", "job.dead", "job.expired", "job.cancelled", "job.rejected"]
DAY_S = 86_400


def _once(types: list[EventType]) -> list[EventType]:
    if len(set(types)) != len(types):
        raise PydanticCustomError("event_types", "must name each type once")
    return types


Url = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[^\x00-\x20]*$")]
Description = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
EventTypes = Annotated[list[EventType], Field(max_length=5), AfterValidator(_once)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EndpointBody(_Body):
    url: Url
    """Public, http or https, on a port of the web."""
    description: Description = ""
    event_types: EventTypes = []
    """Only these; an empty list is all of them."""
    format: Format = "switchboard"
    """`openai`: bodies as of OpenAI's webhooks (`response.completed` …), for `client.webhooks.unwrap`."""


class EndpointChange(_Body):
    url: Url | None = None
    description: Description | None = None
    event_types: EventTypes | None = None
    format: Format | None = None
    disabled: bool | None = None
    """False enables it again, and forgives what it has failed."""


class RotateBody(_Body):
    overlap_s: Annotated[int, Field(ge=0, le=30 * DAY_S), BeforeValidator(whole)] = DAY_S
    """For so long the secrets before sign as well."""


class EndpointsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Word | None = None


class DeliveriesQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Word | None = None
    state: State | None = None
    endpoint_id: UUID | None = None
    job_id: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Word | None = None
