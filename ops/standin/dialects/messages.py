"""Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`.

Every event needs its `event:` line: the SDK drops the others silently. `input_tokens` leaves out what was read from or
written to the prompt cache, and the usage of `message_delta` is the whole, not an increment.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from ops.standin.answer import Answer, Part, Usage
from ops.standin.ask import Ask, Provider, Said, Unreadable
from ops.standin.delivery import Frame
from ops.standin.dialects.dialect import ContentPart, Counting, Ids, decode, encode, event, text_of
from ops.standin.tokenizer import count, count_chat

_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "refusal": "refusal",
    "content_filter": "refusal",  # the only word this provider has for it
}


class _Block(msgspec.Struct):
    """A content block: `text`, `tool_use` or `tool_result`; others are read as nothing."""

    type: str
    text: str | None = None
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"")
    content: str | list[ContentPart] | None = None


class _Message(msgspec.Struct):
    role: Literal["user", "assistant"]
    content: str | list[_Block]


class _ToolChoice(msgspec.Struct):
    type: str


class _Format(msgspec.Struct):
    type: str


class _OutputConfig(msgspec.Struct):
    format: _Format | None = None


class _Request(msgspec.Struct):
    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    system: str | list[ContentPart] | None = None
    stream: bool | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: _ToolChoice | None = None
    output_config: _OutputConfig | None = None


_request = msgspec.json.Decoder(_Request)


class Messages(Counting):
    provider: ClassVar[Provider] = "anthropic"
    operation = "messages"
    id_prefix = "msg_"
    request_id_header = b"request-id"

    def __init__(self, *, only_counts: bool = False) -> None:
        self._only_counts = only_counts

    def read(self, body: bytes) -> Ask:
        request = decode(_request, body)
        if request.max_tokens is None and not self._only_counts:
            raise Unreadable("max_tokens: Field required")
        system = text_of(request.system)
        said = tuple(said for message in request.messages for said in _said(message))
        tools = request.tools or []
        return Ask(
            model=request.model,
            said=said,
            system=system,
            input_tokens=count_chat([*([system] if system else []), *(message.text for message in said)])
            + sum(count(bytes(tool).decode()) for tool in tools),
            max_tokens=request.max_tokens,
            stream=bool(request.stream),
            wants_json=request.output_config is not None and request.output_config.format is not None,
            wants_tools=bool(tools) and (request.tool_choice is None or request.tool_choice.type != "none"),
        )

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> bytes:
        content = [_block(part) for part in answer.parts]
        return encode({**_message(ask, ids), "content": content, **_ending(answer), "usage": _usage(answer.usage)})

    def frames(self, ask: Ask, answer: Answer, ids: Ids) -> Iterator[Frame]:
        start = {**_message(ask, ids), "usage": _usage(answer.usage._replace(output_tokens=0))}
        yield Frame(_event("message_start", message=start))
        for index, part in enumerate(answer.parts):
            yield from _part_frames(index, part)
        ending = _event("message_delta", delta=_ending(answer), usage=_total_usage(answer.usage))
        yield Frame(ending)
        yield Frame(_event("message_stop"), final=True)

    def error(self, status: int, message: str, ids: Ids, reason: str | None) -> bytes:
        kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return encode(_error(kind, message, ids, reason if status != 401 else None))

    def stream_error(self, ids: Ids) -> bytes:
        return event(_error("overloaded_error", "Overloaded", ids, None), "error")

    def broken_event(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type": "content_block_delta", "index\n\n'

    def counted(self, ask: Ask) -> bytes:
        return encode({"input_tokens": ask.input_tokens})


def _said(message: _Message) -> Iterator[Said]:
    """A user message of tool results is what the tools said; text beside them is the user's own."""
    if isinstance(message.content, str):
        yield Said(message.role, message.content)
        return
    own = [_own_text(block) for block in message.content if block.type != "tool_result"]
    if own:
        yield Said(message.role, "\n".join(own))
    yield from (Said("tool", text_of(block.content)) for block in message.content if block.type == "tool_result")


def _own_text(block: _Block) -> str:
    return block.name + bytes(block.input).decode() if block.type == "tool_use" else block.text or ""


def _message(ask: Ask, ids: Ids) -> dict[str, Any]:
    return {
        "id": ids.call_id,
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _ending(answer: Answer) -> dict[str, Any]:
    ending: dict[str, Any] = {"stop_reason": _STOP_REASONS[answer.finish], "stop_sequence": None}
    if ending["stop_reason"] == "refusal":
        ending["stop_details"] = {"type": "refusal", "category": None, "explanation": None}
    return ending


def _block(part: Part) -> dict[str, Any]:
    if part.kind != "tool":
        return {"type": "text", "text": part.text}
    return {"type": "tool_use", "id": f"toolu_{part.call_id}", "name": part.name, "input": _object(part.text)}


def _object(arguments: str) -> dict[str, Any]:
    """Here arguments are an object, not text: what cannot be one is left empty."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _total_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _usage(usage: Usage) -> dict[str, Any]:
    written = {"ephemeral_5m_input_tokens": usage.cache_write_tokens, "ephemeral_1h_input_tokens": 0}
    return {**_total_usage(usage), "cache_creation": written, "service_tier": "standard"}


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


def _part_frames(index: int, part: Part) -> Iterator[Frame]:
    tool = part.kind == "tool"
    empty = {**_block(part), "input": {}} if tool else {"type": "text", "text": ""}
    yield Frame(_event("content_block_start", index=index, content_block=empty), part.head_tokens)
    if index == 0:
        yield Frame(_event("ping"))
    kind, field = ("input_json_delta", "partial_json") if tool else ("text_delta", "text")
    for piece in part.pieces:
        yield Frame(_event("content_block_delta", index=index, delta={"type": kind, field: piece.text}), piece.tokens)
    yield Frame(_event("content_block_stop", index=index))


def _error(kind: str, message: str, ids: Ids, reason: str | None) -> dict[str, Any]:
    details = {} if reason is None else {"details": {"error_code": reason}}
    return {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": ids.request_id}
