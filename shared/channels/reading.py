"""Reading what providers send, where anything may be missing: typed members of JSON, forms, and ids that are ids.

Whatever is not as it must be raises Malformed with the place; its element is kept, the others go on.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

T = TypeVar("T")

MAX_TEXT_CHARS = 1_000
"""Of a detail that only describes: a name, a title."""
_ID = re.compile(r"[\x21-\x7e]{1,256}")
_MAX_FORM_FIELDS = 1_000


class Malformed(ValueError):
    """The message names the place."""


def read_json(raw: bytes) -> Any:
    """The value. Half an emoji, which providers cut, becomes U+FFFD. Raises Malformed."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:  # msgspec takes no lone surrogate
        text = json.dumps(json.loads(raw), ensure_ascii=False)
        return msgspec.json.decode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None


def read_object(raw: bytes) -> dict[str, Any]:
    """Raises Malformed."""
    value = read_json(raw)
    if not isinstance(value, dict):
        raise Malformed("the body must be an object")
    return value


def read_form(raw: bytes) -> list[tuple[str, str]]:
    """Fields in the order they came, empty ones too. Raises Malformed."""
    try:
        return parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="replace",
            max_num_fields=_MAX_FORM_FIELDS,
        )
    except ValueError:
        raise Malformed("the body is not a form") from None


def member(value: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A member that must be there. Raises Malformed."""
    found = value.get(name)
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise Malformed(f"`{name}` must be {_WORDS[kind]}")
    return found


def optional(value: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """The same for one that may be absent or null."""
    return None if value.get(name) is None else member(value, name, kind)


def objects(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Those of a list that only describes; whatever else stands there says nothing."""
    found = value.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def identifier(value: Mapping[str, Any], name: str) -> str:
    """An id, which some send as a number. Raises Malformed for one that is none."""
    found = value.get(name)
    text = str(found) if isinstance(found, int) and not isinstance(found, bool) else found
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise Malformed(f"`{name}` must be an id")
    return text


def unix_s(value: Mapping[str, Any], name: str) -> int | None:
    """A moment, as text or number; None for what is none."""
    found = value.get(name)
    text = str(found) if isinstance(found, int | float) and not isinstance(found, bool) else found
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,11}(\.[0-9]+)?", text):
        return None
    return int(text.partition(".")[0])


def described(**details: Any) -> dict[str, Any]:
    """Those that say something; long texts cut."""
    return {
        name: value[:MAX_TEXT_CHARS] if isinstance(value, str) else value
        for name, value in details.items()
        if value not in (None, "", [], {})
    }


_WORDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    dict: "an object",
    list: "a list",
    bool: "true or false",
}
