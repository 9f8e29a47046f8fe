"""The body of a message: bytes in, a valid `MessageBody` out, or every fault it has.

400 for what is not JSON (or JSON that two readers would read differently), 422 with all faults for the rest. After
`parse_message` every string can be stored: no NUL, no lone surrogates, numbers within what JSON readers agree on.
"""

import json
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from shared.config import Settings
from shared.errors import InvalidRequest

MAX_METADATA_PAIRS = 16
MAX_METADATA_BYTES = 4096
MAX_EXACT_INT = 2**53 - 1
"""Integers beyond it are not the same number in every JSON reader (RFC 8259 §6)."""

Scalar = str | int | float | bool | None


def _fault(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{text}", {"text": message})


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _fault("unstorable", "must not contain NUL characters or lone surrogates")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
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


def _within_ttl_limit(ttl_s: int, info: ValidationInfo) -> int:
    limit = _settings(info).max_ttl_s
    if not 1 <= ttl_s <= limit:
        raise _fault("out_of_range", f"must be from 1 to {limit}")
    return ttl_s


def _web_address(text: str) -> str:
    """Structure only: whether the address may be called is decided when it is."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(c.isspace() for c in text):
        raise _fault("not_a_url", "must be an http or https URL with a host")
    return text


def _scalar(value: object) -> Scalar:
    match value:
        case None | bool():
            return value
        case str():
            if len(value) > 512:
                raise _fault("too_long", "must have at most 512 characters")
            return _storable(value)
        case int() if abs(value) <= MAX_EXACT_INT:
            return value
        case float() if abs(value) < float("inf"):
            return value
        case int() | float():
            raise _fault("out_of_range", "must be a number that every JSON reader can represent")
        case _:
            raise _fault("not_a_scalar", "must be a string, a number, a boolean or null")


def _settings(info: ValidationInfo) -> Settings:
    assert isinstance(info.context, Settings)  # noqa: S101 - parse_message is the only caller
    return info.context


Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
BookName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_storable)]


class MessageBody(BaseModel):
    """What a caller posts. Optional fields may be null."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    message: Annotated[
        str, AfterValidator(_not_blank), AfterValidator(_storable), AfterValidator(_within_message_limit)
    ]
    conversation_id: Id | None = None
    user_id: Id | None = None
    callback_url: (
        Annotated[str, Field(max_length=2048), AfterValidator(_printable), AfterValidator(_web_address)] | None
    ) = None
    metadata: dict[MetadataKey, Annotated[Any, AfterValidator(_scalar)]] | None = None
    ttl_s: Annotated[int, AfterValidator(_within_ttl_limit)] | None = None
    domain: BookName | None = None
    feature: BookName | None = None

    def canonical(self) -> bytes:
        """The same bytes for bodies that mean the same, whatever their spacing and order."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":")).encode()


def parse_message(raw: bytes, settings: Settings) -> MessageBody:
    """Raises InvalidRequest: 400 when it cannot be read, else 422 with all faults."""
    parsed = _read_json(raw)
    faults = _metadata_faults(parsed)
    try:
        body = MessageBody.model_validate(parsed, context=settings)
    except ValidationError as error:
        faults = [*map(_described, error.errors(include_url=False, include_input=False)), *faults]
    if faults:
        raise InvalidRequest("The body has faults; `errors` lists all of them.", faults=faults)
    return body


def _read_json(raw: bytes) -> Any:
    """JSON in strict UTF-8, without what RFC 8259 calls unpredictable: repeated names, NaN, a byte order mark."""
    try:
        return json.loads(raw.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
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


def _described(error: ErrorDetails) -> dict[str, str]:
    """`metadata/order~1id`: the path as in a JSON pointer (RFC 6901), without the leading slash."""
    path = [str(part).replace("~", "~0").replace("/", "~1") for part in error["loc"] if part != "[key]"]
    field = "/".join(path).encode("utf-8", "backslashreplace").decode()
    return {"field": field, "message": error["msg"]}
