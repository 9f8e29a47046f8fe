"""What requests about users may say: bodies become checked values, or all their faults at once."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ops.console.asks import Word

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
TOPIC = r"^[a-z0-9_]{1,64}$"
MAX_USER_ID_CHARS = 128


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise PydanticCustomError("text", "must not contain NUL characters or lone surrogates")
    return text


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProfileBody(_Body):
    """Null takes an entry out; what is not named stays."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_storable)] | None = None
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")] | None = None
    """As BCP 47 has it: de, pt-BR."""
    prefers_concise: bool | None = None
    """Whether short answers are wanted."""


class FactBody(_Body):
    text: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_storable)]
    """One sentence. It holds from now on; what was known of the topic is closed, and kept."""


class UserQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Word | None = None
    """Whose user; for an operator."""


class FactsQuery(UserQuery):
    past: bool = False
    """Facts that held once, too."""


def is_user_id(text: str) -> bool:
    return 0 < len(text) <= MAX_USER_ID_CHARS and not _UNSTORABLE.search(text)


def is_topic(text: str) -> bool:
    return re.fullmatch(TOPIC.removesuffix("$"), text) is not None
