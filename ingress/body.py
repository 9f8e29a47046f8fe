"""The body of a message: bytes in, a valid `ChatMessage` out, or every fault it has.

400 for what is not JSON (or JSON that two readers would read differently), 422 with all faults for the rest. After
`parse_message` every string can be stored: no NUL, no lone surrogates, numbers within what JSON readers agree on.
"""

import json
import re
from typing import Annotated, Any, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from ingress.message import INVISIBLE, MAX_BOOK_NAME_CHARS, MAX_ID_CHARS, UNPRINTABLE, ChatMessage, plain_message
from shared.addresses import fault_of
from shared.config import Settings
from shared.errors import InvalidRequest
from shared.wire import Policy

MAX_METADATA_PAIRS = 16
MAX_METADATA_BYTES = 4096
MAX_EXACT_INT = 2**53 - 1
"""Integers beyond it are not the same number in every JSON reader (RFC 8259 §6)."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

Scalar = str | int | float | bool | None

# The rules below once more, in the API document's words (JSON Schema). Limits that are settings are added there.
_AS_STORABLE: Any = {"pattern": r"^[^\u0000]*$"}
_AS_PRINTABLE: Any = {"pattern": f"^[^{INVISIBLE}]*$"}
_SPACES = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # those of str.strip
_AS_TEXT: Any = {"minLength": 1, "pattern": rf"^[^\u0000]*[^\u0000{_SPACES}][^\u0000]*$"}
_AS_WEB_ADDRESS: Any = {"pattern": f"^[Hh][Tt][Tt][Pp][Ss]?://[^{INVISIBLE} ]+$"}
_AS_SCALAR: Any = {
    "anyOf": [
        {"type": "string", "maxLength": 512, **_AS_STORABLE},
        {"type": "number", "minimum": -MAX_EXACT_INT, "maximum": MAX_EXACT_INT},
        {"type": "boolean"},
        {"type": "null"},
    ]
}
_AS_METADATA: Any = {
    "maxProperties": MAX_METADATA_PAIRS,
    "propertyNames": {"minLength": 1, "maxLength": 64, **_AS_STORABLE},
}


def _fault(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{text}", {"text": message})


def storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise _fault("unstorable", "must not contain NUL characters or lone surrogates")
    return text


def _printable(text: str) -> str:
    if UNPRINTABLE.search(text):
        raise _fault("unprintable", "must consist of printable characters")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise _fault("blank", "must not be empty or only white space")
    return text


def _within_message_limit(text: str, info: ValidationInfo) -> str:
    limit = _settings(info).max_message_chars
    if len(text) > limit:
        raise _fault("too_long", f"must have at most {limit} characters, has {len(text)}")
    return text


def whole(value: object) -> object:
    """`60.0` is `60`: JSON has one kind of number, and not every writer says the same one in the same way."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _within_ttl_limit(ttl_s: int, info: ValidationInfo) -> int:
    limit = _settings(info).max_ttl_s
    if not 1 <= ttl_s <= limit:
        raise _fault("out_of_range", f"must be from 1 to {limit}")
    return ttl_s


def _web_address(text: str, info: ValidationInfo) -> str:
    """What can be seen of it: where its name leads is looked up when it is called."""
    if any(c.isspace() for c in text):
        raise _fault("not_a_url", "must be an http or https URL with a host")
    if fault := fault_of(text, allow_private=_settings(info).delivery_allow_private):
        raise _fault("not_a_url", fault)
    return text


def _scalar(value: object) -> Scalar:
    match value:
        case None | bool():
            return value
        case str():
            if len(value) > 512:
                raise _fault("too_long", "must have at most 512 characters")
            return storable(value)
        case int() | float() if abs(value) <= MAX_EXACT_INT:
            return value
        case int() | float():  # 1e16 and 10000000000000000 are the same number to a JSON reader
            raise _fault("out_of_range", f"must be a number from -{MAX_EXACT_INT} to {MAX_EXACT_INT}")
        case _:
            raise _fault("not_a_scalar", "must be a string, a number, a boolean or null")


def _settings(info: ValidationInfo) -> Settings:
    assert isinstance(info.context, Settings)  # noqa: S101 - parse_message is the only caller
    return info.context


Id = Annotated[
    str, Field(min_length=1, max_length=MAX_ID_CHARS, json_schema_extra=_AS_PRINTABLE), AfterValidator(_printable)
]
BookName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_BOOK_NAME_CHARS, json_schema_extra=_AS_PRINTABLE),
    AfterValidator(_printable),
]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(storable)]
Metadata = Annotated[
    dict[MetadataKey, Annotated[Any, AfterValidator(_scalar), WithJsonSchema(_AS_SCALAR)]],
    Field(json_schema_extra=_AS_METADATA),
]


class MessageBody(BaseModel):
    """What a caller posts. Optional fields may be null."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    message: Annotated[
        str,
        Field(json_schema_extra=_AS_TEXT),
        AfterValidator(_not_blank),
        AfterValidator(storable),
        AfterValidator(_within_message_limit),
    ]
    conversation_id: Id | None = None
    """An earlier message's, to go on with it; a new conversation without one."""
    user_id: Id | None = None
    """Who is talking. A conversation belongs to the first user named in it; agents with memory remember by it."""
    callback_url: (
        Annotated[
            str,
            Field(max_length=2048, json_schema_extra=_AS_WEB_ADDRESS),
            AfterValidator(_printable),
            AfterValidator(_web_address),
        ]
        | None
    ) = None
    metadata: Metadata | None = None
    """Yours; comes back with the job. At most 4096 bytes as JSON."""
    ttl_s: Annotated[int, BeforeValidator(whole), AfterValidator(_within_ttl_limit)] | None = None
    """A job that was not started by then, in seconds, expires."""
    domain: BookName | None = None
    """What the costs are booked under."""
    feature: BookName | None = None
    """What the costs are booked under, finer."""
    policy: Policy | None = None
    """What becomes of this message while earlier ones of its conversation are unfinished; the agent's own if none."""


def parse_message(raw: bytes, settings: Settings) -> ChatMessage:
    """Raises InvalidRequest: 400 when it cannot be read, else 422 with all faults."""
    return plain_message(raw, settings) or checked_message(raw, settings)


def checked_message(raw: bytes, settings: Settings) -> ChatMessage:
    """`parse_message` of any body, plain or not."""
    parsed = read_json(raw)
    faults = _metadata_faults(parsed)
    try:
        body = MessageBody.model_validate(parsed, context=settings)
    except ValidationError as error:
        faults = [*map(described, error.errors(include_url=False, include_input=False)), *faults]
    if faults:
        raise InvalidRequest("The body has faults; `errors` lists all of them.", faults=faults)
    return ChatMessage(**dict(body))


def read_json(raw: bytes) -> Any:
    """JSON in strict UTF-8, without what RFC 8259 calls unpredictable: repeated names, NaN, a byte order mark."""
    try:
        return _decode_json(raw.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"The body is not JSON: {error.msg} at {where}.") from None
    except ValueError as error:  # from our two hooks, or an integer of thousands of digits
        raise InvalidRequest(f"The body is not usable JSON: {error}.") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("an object has the same name twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_decode_json = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant).decode
"""Made once: `json.loads` with hooks makes a decoder per call."""


def _metadata_faults(parsed: Any) -> list[dict[str, str]]:
    """Faults of the metadata as a whole; the model reports those of its pairs, and both are wanted at once."""
    metadata = parsed.get("metadata") if isinstance(parsed, dict) else None
    if not isinstance(metadata, dict):
        return []
    faults = []
    if len(metadata) > MAX_METADATA_PAIRS:
        faults.append({"field": "metadata", "message": f"must have at most {MAX_METADATA_PAIRS} pairs"})
    if len(json.dumps(metadata, ensure_ascii=False).encode("utf-8", "surrogatepass")) > MAX_METADATA_BYTES:
        faults.append({"field": "metadata", "message": f"must have at most {MAX_METADATA_BYTES} bytes as JSON"})
    return faults


def described(error: ErrorDetails) -> dict[str, str]:
    """`metadata/order~1id`: the path as in a JSON pointer (RFC 6901), without the leading slash."""
    path = [str(part).replace("~", "~0").replace("/", "~1") for part in error["loc"] if part != "[key]"]
    field = "/".join(path).encode("utf-8", "backslashreplace").decode()
    return {"field": field, "message": error["msg"]}
