"""What requests about channels may say: bodies and queries become checked values, or all their faults at once."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ingress.body import whole
from ops.console.asks import Word
from ops.tenants.asks import TENANT_ID, Name, Settings
from shared.channels.registry import load

CHANNEL_ID = r"^ch-[a-z0-9]{16}$"
KIND = r"^[a-z][a-z0-9-]{0,31}$"
AGENT_ID = r"^[a-z][a-z0-9-]{0,62}$"

Book = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]
Agent = Annotated[str, Field(pattern=AGENT_ID)]
Version = Annotated[int, Field(ge=1, lt=2**62), BeforeValidator(whole)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class CreateChannelBody(_Body):
    tenant: Annotated[str, Field(pattern=TENANT_ID)] | None = None
    """Whose it is. An `admin` key has no other than its own; an operator must say."""
    kind: Annotated[str, Field(pattern=KIND, json_schema_extra={"enum": list(load())})]
    """`whatsapp`, `twilio`, `telegram` or `slack`."""
    name: Name | None = None
    """For people; the kind when not given."""
    agent: Agent
    """Who answers."""
    domain: Book | None = None
    feature: Book | None = None
    settings: Settings = {}
    """Which there are depends on the kind."""
    credentials: Settings
    """Which there are depends on the kind. They are kept encrypted and never shown."""


class ChangeChannelBody(_Body):
    name: Name | None = None
    agent: Agent | None = None
    domain: Book | None = None
    feature: Book | None = None
    settings: Settings = {}
    """A JSON merge patch (RFC 7396)."""
    credentials: Settings = {}
    """The same: what is not named stays as it is."""
    version: Version | None = None
    """Change it only if this is its version; else 409."""


class RotateChannelBody(_Body):
    credentials: Settings
    """New values, by name. A secret that can have several valid values gets one more, which comes first."""
    keep: Annotated[int, Field(ge=0, le=3), BeforeValidator(whole)] = 1
    """How many of the older values stay valid."""


class ChannelsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Word | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Word | None = None


class KeptQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=200)] = 50


def is_channel_id(text: str) -> bool:
    return re.fullmatch(CHANNEL_ID.removesuffix("$"), text) is not None


Patch = dict[str, Any]
