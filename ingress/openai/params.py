"""The parameters of `POST /v1/responses` and `POST /v1/chat/completions`.

Three kinds: those that are used (the fields of the models); those that are taken and change nothing (`IGNORED`), as an
agent brings its own sampling, reasoning, tiers and caching; and those whose loss would change what the caller gets
(`REFUSED`): these may be given only with a value that asks for nothing. Whatever is not listed is refused as unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ingress.body import MAX_METADATA_PAIRS, Id, MetadataKey, storable, whole
from ingress.openapi.describe import Schema, nullable

UNSUPPORTED = "unsupported_parameter"

_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}


@dataclass(frozen=True)
class Refused:
    because: str
    unless: tuple[Any, ...] = ()
    """Values that ask for nothing, beside null."""


_OWN_TOOLS = "agents bring their own tools"
_PLAIN_TEXT = "agents answer in plain text"
_NO_TOOLS = Refused(_OWN_TOOLS, ([],))
_NO_CHOICE = Refused(_OWN_TOOLS, ("auto", "none"))
_NO_LOGPROBS = "there are no log probabilities"

_IGNORED_BY_BOTH: Mapping[str, Schema] = {
    "store": _FLAG,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "service_tier": _TEXT,
    "parallel_tool_calls": _FLAG,
    "prompt_cache_key": _TEXT,
    "prompt_cache_options": _OBJECT,
    "prompt_cache_retention": _TEXT,
}
_REFUSED_BY_BOTH: Mapping[str, Refused] = {
    "tools": _NO_TOOLS,
    "tool_choice": _NO_CHOICE,
    "top_logprobs": Refused(_NO_LOGPROBS, (0,)),
    "moderation": Refused("nothing is moderated on request"),
}
IGNORED: Mapping[str, Mapping[str, Schema]] = {
    "responses": {**_IGNORED_BY_BOTH, "truncation": _TEXT, "reasoning": _OBJECT, "max_tool_calls": _NUMBER},
    "chat": {
        **_IGNORED_BY_BOTH,
        "seed": _NUMBER,
        "presence_penalty": _NUMBER,
        "frequency_penalty": _NUMBER,
        "reasoning_effort": _TEXT,
        "verbosity": _TEXT,
        "prediction": _OBJECT,
    },
}
REFUSED: Mapping[str, Mapping[str, Refused]] = {
    "responses": {
        **_REFUSED_BY_BOTH,
        "prompt": Refused("agents bring their own prompts"),
        "context_management": Refused("agents manage their own context", ([],)),
    },
    "chat": {
        **_REFUSED_BY_BOTH,
        "n": Refused("there is one answer", (1,)),
        "functions": _NO_TOOLS,
        "function_call": _NO_CHOICE,
        "response_format": Refused(_PLAIN_TEXT, ({"type": "text"},)),
        "logprobs": Refused(_NO_LOGPROBS, (False,)),
        "stop": Refused("agents end their answers themselves", ([],)),
        "logit_bias": Refused("agents choose their own words", ({},)),
        "modalities": Refused(_PLAIN_TEXT, (["text"],)),
        "audio": Refused(_PLAIN_TEXT),
        "web_search_options": Refused(_OWN_TOOLS),
    },
}


def _without_logprobs(names: list[str]) -> list[str]:
    if "message.output_text.logprobs" in names:
        raise PydanticCustomError(UNSUPPORTED, "{text}", {"text": f"is not supported: {_NO_LOGPROBS}"})
    return names


_Tokens = Annotated[int, Field(ge=1, le=1_000_000_000), BeforeValidator(whole)]
_Storable = Annotated[str, AfterValidator(storable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
_Metadata = Annotated[
    dict[MetadataKey, Annotated[_Storable, Field(max_length=512)]],
    Field(
        max_length=MAX_METADATA_PAIRS,
        json_schema_extra={"propertyNames": {"minLength": 1, "maxLength": 64, "pattern": r"^[^\u0000]*$"}},
    ),
]
_Include = Annotated[
    list[str],
    AfterValidator(_without_logprobs),
    WithJsonSchema({"type": "array", "items": {"type": "string", "not": {"const": "message.output_text.logprobs"}}}),
]
_CONFIG = ConfigDict(extra="forbid", strict=True, frozen=True)


class ConversationParam(BaseModel):
    model_config = _CONFIG

    id: Id


class StreamOptions(BaseModel):
    model_config = _CONFIG

    include_usage: bool | None = None
    """Of a chat: a last chunk tells the usage."""
    include_obfuscation: bool | None = None
    """Nothing is added to our streams, whatever it says."""


class TextFormat(BaseModel):
    model_config = _CONFIG

    type: Literal["text"]


class TextConfig(BaseModel):
    model_config = _CONFIG

    format: TextFormat | None = None
    verbosity: str | None = None
    """Changes nothing."""


class ResponseBody(BaseModel):
    """What `POST /v1/responses` is sent. All but `model` and `input` may be null."""

    model_config = _CONFIG

    model: str
    """An agent's id; `GET /v1/models` lists them."""
    input: Any
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: _Metadata | None = None
    user: Id | None = None
    """Who is talking, as `user_id` of our own API."""
    safety_identifier: Id | None = None
    """The same, where `user` is not given."""
    instructions: _Storable | None = None
    """For this response; they stand behind the agent's own."""
    background: bool | None = None
    conversation: Id | ConversationParam | None = None
    """A conversation to go on with, or a name for a new one."""
    previous_response_id: Annotated[str, Field(max_length=128)] | None = None
    """Goes on with the conversation of that response."""
    max_output_tokens: _Tokens | None = None
    """Lowers the agent's own bound."""
    text: TextConfig | None = None
    include: _Include | None = None


class ChatBody(BaseModel):
    """What `POST /v1/chat/completions` is sent. All but `model` and `messages` may be null."""

    model_config = _CONFIG

    model: str
    """An agent's id; `GET /v1/models` lists them."""
    messages: Any
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: _Metadata | None = None
    user: Id | None = None
    """Who is talking, as `user_id` of our own API."""
    safety_identifier: Id | None = None
    """The same, where `user` is not given."""
    max_completion_tokens: _Tokens | None = None
    """Lowers the agent's own bound."""
    max_tokens: _Tokens | None = None
    """The same, by its older name."""


def schemas_of_others(api: str) -> dict[str, Schema]:
    """The parameters that no model has, by name."""
    ignored = {name: {**nullable(schema), "description": "Changes nothing."} for name, schema in IGNORED[api].items()}
    refused = {
        name: {"enum": [None, *each.unless], "description": f"Not supported: {each.because}."}
        for name, each in REFUSED[api].items()
    }
    return {**ignored, **refused}
