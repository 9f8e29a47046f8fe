"""Bodies of requests in OpenAI's form: bytes in, what is asked out, or every fault it has.

What cannot be read as JSON is refused as on our own routes; then all faults are told at once.
"""

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ingress.body import described, read_json
from ingress.openai.params import IGNORED, REFUSED, UNSUPPORTED, ChatBody, ConversationParam, ResponseBody
from ingress.openai.said import Fault, Reading, read_input, read_messages
from shared.config import Settings
from shared.errors import InvalidRequest
from shared.wire import Asked

Body = TypeVar("Body", bound=BaseModel)

_CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter", UNSUPPORTED: UNSUPPORTED}
_UNKNOWN = {"extra_forbidden": "is not known", "missing": "is required"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request, whichever way it came."""

    model: str
    message: str
    asked: Asked
    user_id: str | None
    metadata: dict[str, str]
    stream: bool
    canonical: bytes
    """The same bytes for bodies that mean the same, whatever their spacing and order."""
    conversation_id: str | None = None
    include_usage: bool = False


def parse_response(raw: bytes, settings: Settings) -> Question:
    """Raises InvalidRequest."""
    parsed, reading = read_json(raw), Reading(settings.max_message_chars)
    body = _model("responses", ResponseBody, parsed, reading)
    if body is not None:
        read_input(body.input, reading)
        if body.conversation is not None and body.previous_response_id is not None:
            reading.fault("previous_response_id", "cannot be used together with `conversation`")
    if body is None or reading.faults:
        raise _refused(reading.faults)
    named = body.conversation.id if isinstance(body.conversation, ConversationParam) else body.conversation
    instructions = [body.instructions] if body.instructions else []
    return Question(
        model=body.model,
        message=reading.message,
        asked=Asked(
            api="responses",
            instructions="\n\n".join([*instructions, *reading.instructions]) or None,
            max_output_tokens=body.max_output_tokens,
            given=reading.given,
            background=bool(body.background),
            previous_response_id=body.previous_response_id,
        ),
        user_id=body.user or body.safety_identifier,
        metadata=body.metadata or {},
        stream=bool(body.stream),
        canonical=_canonical(parsed),
        conversation_id=named,
    )


def parse_chat(raw: bytes, settings: Settings) -> Question:
    """Raises InvalidRequest."""
    parsed, reading = read_json(raw), Reading(settings.max_message_chars)
    body = _model("chat", ChatBody, parsed, reading)
    if body is not None:
        read_messages(body.messages, reading)
    if body is None or reading.faults:
        raise _refused(reading.faults)
    bounds = [tokens for tokens in (body.max_completion_tokens, body.max_tokens) if tokens is not None]
    return Question(
        model=body.model,
        message=reading.message,
        asked=Asked(
            api="chat",
            instructions="\n\n".join(reading.instructions) or None,
            max_output_tokens=min(bounds, default=None),
            given=reading.given,
        ),
        user_id=body.user or body.safety_identifier,
        metadata=body.metadata or {},
        stream=bool(body.stream),
        canonical=_canonical(parsed),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


def _model(api: str, kind: type[Body], parsed: Any, reading: Reading) -> Body | None:
    """The parameters that are used; None when they have faults."""
    if not isinstance(parsed, dict):
        reading.fault("", "must be a JSON object")
        return None
    for name, refused in REFUSED[api].items():
        value = parsed.get(name)
        if value is not None and not any(type(value) is type(one) and value == one for one in refused.unless):
            reading.fault(name, f"is not supported: {refused.because}", UNSUPPORTED)
    used = {name: value for name, value in parsed.items() if name not in IGNORED[api] and name not in REFUSED[api]}
    try:
        return kind.model_validate(used)
    except ValidationError as error:
        found = {fault["field"]: fault for fault in map(_fault, error.errors(include_url=False, include_input=False))}
        reading.faults += found.values()
        return None


def _fault(error: ErrorDetails) -> Fault:
    """As of our own bodies, with OpenAI's code. Of a choice of forms every branch has its fault: one is told."""
    fault, kind = described(error), error["type"]
    return {
        "field": "conversation" if fault["field"].startswith("conversation/") else fault["field"],
        "message": _UNKNOWN.get(kind, fault["message"]),
        "code": _CODES.get(kind, "invalid_value"),
    }


def _refused(faults: list[Fault]) -> InvalidRequest:
    return InvalidRequest("The body has faults.", faults=faults)


def _canonical(parsed: Any) -> bytes:
    return json.dumps(parsed, sort_keys=True, separators=(",", ":")).encode()
