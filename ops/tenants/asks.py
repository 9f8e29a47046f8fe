"""What requests about tenants may say: paths, queries and bodies become checked values, or all their faults at once."""

import re
import time
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from ingress.body import whole
from ops.console.asks import Word
from ops.tenants.records import Scope

TENANT_ID = r"^[a-z0-9][a-z0-9_-]{0,62}$"
KEY_ID = r"^[0-9a-f]{12}$"

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
MAX_DEPTH = 8
"""No setting is deeper; what is goes no further, so that nothing that recurses meets it."""


def _shallow(settings: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [settings]
    for _ in range(MAX_DEPTH):
        level = [value for each in level if isinstance(each, dict | list) for value in _values(each)]
    if level:
        raise PydanticCustomError("depth", "must not be nested so deeply")
    return settings


def _values(container: dict[str, Any] | list[Any]) -> list[Any]:
    return list(container.values()) if isinstance(container, dict) else container


Settings = Annotated[dict[str, Any], Field(max_length=100), AfterValidator(_shallow)]


def _known_once(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) != len(scopes):
        raise PydanticCustomError("scopes", "must name each scope once")
    return scopes


def _ahead(moment: datetime, _info: ValidationInfo) -> datetime:
    if moment.timestamp() <= time.time() or moment.year > 9000:
        raise PydanticCustomError("moment", "must be in the future")
    return moment


def _read_moment(value: object) -> object:
    """Strict models take no text for a moment; JSON has nothing else."""
    if not isinstance(value, str):
        raise PydanticCustomError("moment", "must be a moment as RFC 3339 has it, such as 2027-01-31T00:00:00Z")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError(
            "moment", "must be a moment as RFC 3339 has it, such as 2027-01-31T00:00:00Z"
        ) from None


Moment = Annotated[AwareDatetime, BeforeValidator(_read_moment), AfterValidator(_ahead)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CreateBody(_Body):
    id: Annotated[str, Field(pattern=TENANT_ID)]
    name: Name
    settings: Settings = {}


class ChangeBody(_Body):
    name: Name | None = None
    settings: Settings = {}
    """A JSON merge patch (RFC 7396): null takes a setting back to what the plan has."""
    settings_version: Annotated[int, Field(ge=1, lt=2**62), BeforeValidator(whole)] | None = None
    """Change it only if this is its version; else 409."""


class KeyBody(_Body):
    label: Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")] = ""
    scopes: Annotated[list[Scope], Field(min_length=1), AfterValidator(_known_once)] = ["chat"]  # pydantic copies it
    expires_at: Moment | None = None

    @property
    def expires_us(self) -> int | None:
        return None if self.expires_at is None else int(self.expires_at.timestamp()) * 1_000_000


class TenantsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Word | None = None


def is_tenant_id(text: str) -> bool:
    return re.fullmatch(TENANT_ID.removesuffix("$"), text) is not None


def is_key_id(text: str) -> bool:
    return re.fullmatch(KEY_ID.removesuffix("$"), text) is not None
