"""What was said: the input of a response, or the messages of a chat, as one message and what was given along with it.

The last messages of the user are the message of the job; system and developer messages are instructions; all others are
given along. Parts of a message are text; others are faults, named by their path. Faults are collected, not raised.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

from ingress.body import storable
from ingress.openai.params import UNSUPPORTED
from shared.wire import Said

Fault = dict[str, str]

_INSTRUCTING = ("system", "developer")
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of parts that are text, and the member that holds it."""
_MESSAGE_MEMBERS = frozenset({"role", "content", "type", "id", "status", "phase", "refusal", "annotations"})
_EMPTY_MEMBERS = frozenset({"name", "tool_calls", "function_call", "audio"})
"""Members of a chat message that may be there as long as they say nothing."""


class _Line(NamedTuple):
    role: str
    text: str


@dataclass
class Reading:
    """What was found, and every fault on the way."""

    max_message_chars: int
    message: str = ""
    given: list[Said] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, where: str, message: str, code: str = "invalid_value") -> None:
        self.faults.append({"field": where, "message": message, "code": code})


def read_input(given: Any, reading: Reading) -> None:
    """Of a response: a text, or items that are messages."""
    if isinstance(given, str):
        _take([_Line("user", given)], "input", reading)
    elif isinstance(given, list):
        _take([line for n, item in enumerate(given) for line in _item(item, f"input/{n}", reading)], "input", reading)
    else:
        reading.fault("input", "must be a text or a list of messages")


def read_messages(given: Any, reading: Reading) -> None:
    """Of a chat."""
    if not isinstance(given, list):
        reading.fault("messages", "must be a list of messages")
        return
    lines = [line for n, item in enumerate(given) for line in _message(item, f"messages/{n}", reading)]
    _take(lines, "messages", reading)


def _take(lines: Sequence[_Line], where: str, reading: Reading) -> None:
    reading.instructions += [line.text for line in lines if line.role in _INSTRUCTING and line.text.strip()]
    said = [line for line in lines if line.role not in _INSTRUCTING]
    asked = len(said)
    while asked and said[asked - 1].role == "user":
        asked -= 1
    reading.given = [
        Said("user" if line.role == "user" else "assistant", line.text) for line in said[:asked] if line.text.strip()
    ]
    reading.message = "\n\n".join(line.text for line in said[asked:] if line.text.strip())
    if reading.faults:
        return  # what is missing may be among what could not be read
    if not reading.message:
        reading.fault(where, "must end with a message of the user that is not empty")
    elif len(reading.message) > reading.max_message_chars:
        reading.fault(
            where,
            f"must end with at most {reading.max_message_chars} characters of the user, has {len(reading.message)}",
            "string_above_max_length",
        )


def _item(item: Any, where: str, reading: Reading) -> Iterator[_Line]:
    kind = item.get("type", "message") if isinstance(item, dict) else "message"
    if kind != "message":
        reading.fault(f"{where}/type", "only messages are supported", UNSUPPORTED)
        return
    yield from _message(item, where, reading)


def _message(item: Any, where: str, reading: Reading) -> Iterator[_Line]:
    if not isinstance(item, dict):
        reading.fault(where, "must be a message")
        return
    role = item.get("role")
    if role not in ("user", "assistant", *_INSTRUCTING):
        shown = "must be user, assistant, system or developer"
        reading.fault(f"{where}/role", shown, UNSUPPORTED if role in ("tool", "function") else "invalid_value")
        return
    _check_members(item, where, reading)
    content = item.get("content")
    if content is None and role == "assistant":
        content = item.get("refusal") or ""
    if (text := _text_of(content, f"{where}/content", reading)) is not None:
        yield _Line(role, text)


def _check_members(item: dict[str, Any], where: str, reading: Reading) -> None:
    for name, value in item.items():
        if name in _EMPTY_MEMBERS:
            if value not in (None, "", []):
                reading.fault(f"{where}/{name}", "is not supported", UNSUPPORTED)
        elif name not in _MESSAGE_MEMBERS:
            shown = name.encode("utf-8", "backslashreplace").decode()
            reading.fault(f"{where}/{shown}", "is not known", "unknown_parameter")


def _text_of(content: Any, where: str, reading: Reading) -> str | None:
    if isinstance(content, str):
        return _checked(content, where, reading)
    if not isinstance(content, list):
        reading.fault(where, "must be a text or a list of text parts")
        return None
    texts = [_part(part, f"{where}/{n}", reading) for n, part in enumerate(content)]
    return "\n".join(text for text in texts if text is not None)


def _part(part: Any, where: str, reading: Reading) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else None
    member = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    if member is None:
        reading.fault(f"{where}/type", "only text is supported", UNSUPPORTED)
        return None
    text = part.get(member)
    if not isinstance(text, str):
        reading.fault(f"{where}/{member}", "must be a text")
        return None
    return _checked(text, f"{where}/{member}", reading)


def _checked(text: str, where: str, reading: Reading) -> str | None:
    try:
        return storable(text)
    except PydanticCustomError as error:
        reading.fault(where, error.message())
        return None
