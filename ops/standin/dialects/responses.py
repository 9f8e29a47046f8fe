"""OpenAI's `POST /v1/responses`, streamed and whole, without state: nothing can be retrieved or continued later.

Every event carries its `type` and a `sequence_number`; the stream ends with `response.completed` or
`response.incomplete`, which holds the whole response once more.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ops.standin.answer import Answer, Part, Usage
from ops.standin.ask import Ask, Role, Said, Unreadable
from ops.standin.delivery import Frame
from ops.standin.dialects.dialect import ContentPart, Counting, Ids, decode, encode, event, text_of
from ops.standin.dialects.openai import SERVER_ERROR, OpenAIDialect
from ops.standin.tokenizer import count, count_chat

_ROLES: dict[str | None, Role] = {"developer": "system", "system": "system", "assistant": "assistant"}
_ABOVE_ANY = 1 << 31
"""Sequence number of an event that is not counted along: the numbers only have to rise."""
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Item(msgspec.Struct):
    """An input item: a message, a `function_call` or a `function_call_output`; others are read as nothing."""

    type: str = "message"
    role: str | None = None
    content: str | list[ContentPart] | None = None
    name: str = ""
    arguments: str = ""
    output: str | list[ContentPart] | None = None


class _Request(msgspec.Struct):
    model: Annotated[str, Meta(min_length=1)]
    input: str | list[_Item]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None


_request = msgspec.json.Decoder(_Request)


class Responses(OpenAIDialect, Counting):
    operation = "responses"
    id_prefix = "resp_"

    def read(self, body: bytes) -> Ask:
        request = decode(_request, body)
        _refuse_state(request)
        everything = _said(request.input)
        system = [request.instructions] if request.instructions else []
        system += [message.text for message in everything if message.role == "system"]
        said = tuple(message for message in everything if message.role != "system")
        tools = [bytes(tool) for tool in request.tools or ()]
        return Ask(
            model=request.model,
            said=said,
            system="\n".join(system),
            input_tokens=count_chat([*system, *(message.text for message in said)])
            + sum(count(tool.decode()) for tool in tools),
            max_tokens=request.max_output_tokens,
            stream=bool(request.stream),
            wants_tools=bool(tools) and request.tool_choice != "none",
            extras=_echoed(request),
        )

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> bytes:
        return encode(_ended(ask, answer, ids))

    def frames(self, ask: Ask, answer: Answer, ids: Ids) -> Iterator[Frame]:
        for sequence_number, (kind, fields, tokens) in enumerate(_events(ask, answer, ids)):
            data = {"type": kind, "sequence_number": sequence_number, **fields}
            yield Frame(event(data, kind), tokens, final=kind in _TERMINAL)

    def stream_error(self, ids: Ids) -> bytes:
        data = {"type": "error", "code": "server_error", "message": SERVER_ERROR, "param": None}
        return event({**data, "sequence_number": _ABOVE_ANY}, "error")

    def broken_event(self) -> bytes:
        return b'event: response.output_text.delta\ndata: {"type": "response.output_text.del\n\n'

    def counted(self, ask: Ask) -> bytes:
        return encode({"object": "response.input_tokens", "input_tokens": ask.input_tokens})


_Event = tuple[str, dict[str, Any], int]
"""Type, fields, output tokens."""
_TERMINAL = ("response.completed", "response.incomplete")


def _refuse_state(request: _Request) -> None:
    if request.previous_response_id is not None:
        raise Unreadable("The stand-in keeps no responses to continue.", reason="previous_response_not_found")
    if request.conversation is not None or request.background:
        raise Unreadable("The stand-in keeps no conversations and runs nothing in the background.")


def _said(given: str | list[_Item]) -> list[Said]:
    if isinstance(given, str):
        return [Said("user", given)]
    return [said for item in given if (said := _item(item)) is not None]


def _item(item: _Item) -> Said | None:
    match item.type:
        case "message":
            return Said(_ROLES.get(item.role, "user"), text_of(item.content))
        case "function_call":
            return Said("assistant", item.name + item.arguments)
        case "function_call_output":
            return Said("tool", text_of(item.output))
        case _:
            return None


def _echoed(request: _Request) -> dict[str, Any]:
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
    }


def _response(ask: Ask, ids: Ids, status: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": ids.call_id,
        "object": "response",
        "created_at": ids.created_s,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": ask.model,
        "output": [],
        "previous_response_id": None,
        "usage": None,
        **ask.extras,
        **fields,
    }


def _ended(ask: Ask, answer: Answer, ids: Ids) -> dict[str, Any]:
    reason = _INCOMPLETE.get(answer.finish)
    status = "completed" if reason is None else "incomplete"
    return _response(
        ask,
        ids,
        status,
        incomplete_details=None if reason is None else {"reason": reason},
        output=[_output_item(part, index, ids, status) for index, part in enumerate(answer.parts)],
        usage=_usage_object(answer.usage),
        **({"completed_at": ids.created_s} if reason is None else {}),
    )


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _item_id(part: Part, index: int, ids: Ids) -> str:
    return f"{'fc' if part.kind == 'tool' else 'msg'}_{ids.unique}{index}"


def _output_item(part: Part, index: int, ids: Ids, status: str, *, empty: bool = False) -> dict[str, Any]:
    """The item of one part; `empty` as it is when a stream adds it."""
    item_id = _item_id(part, index, ids)
    if part.kind == "tool":
        call = {"call_id": f"call_{part.call_id}", "name": part.name, "arguments": "" if empty else part.text}
        return {"type": "function_call", "id": item_id, "status": status, **call}
    content = [] if empty else [_content(part, part.text)]
    return {"type": "message", "id": item_id, "role": "assistant", "status": status, "content": content}


def _content(part: Part, text: str) -> dict[str, Any]:
    if part.kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": []}


def _events(ask: Ask, answer: Answer, ids: Ids) -> Iterator[_Event]:
    for kind, status in (("created", "queued"), ("queued", "queued"), ("in_progress", "in_progress")):
        yield f"response.{kind}", {"response": _response(ask, ids, status)}, 0
    ended = _ended(ask, answer, ids)
    for index, part in enumerate(answer.parts):
        added = _output_item(part, index, ids, "in_progress", empty=True)
        yield "response.output_item.added", {"output_index": index, "item": added}, part.head_tokens
        yield from _tool_events(part, index, ids) if part.kind == "tool" else _text_events(part, index, ids)
        yield "response.output_item.done", {"output_index": index, "item": ended["output"][index]}, 0
    yield f"response.{ended['status']}", {"response": ended}, 0


def _text_events(part: Part, index: int, ids: Ids) -> Iterator[_Event]:
    at = {"item_id": _item_id(part, index, ids), "output_index": index, "content_index": 0}
    kind, field = ("refusal", "refusal") if part.kind == "refusal" else ("output_text", "text")
    more: dict[str, Any] = {} if part.kind == "refusal" else {"logprobs": []}
    yield "response.content_part.added", {**at, "part": _content(part, "")}, 0
    for piece in part.pieces:
        yield f"response.{kind}.delta", {**at, "delta": piece.text, **more}, piece.tokens
    yield f"response.{kind}.done", {**at, field: part.text, **more}, 0
    yield "response.content_part.done", {**at, "part": _content(part, part.text)}, 0


def _tool_events(part: Part, index: int, ids: Ids) -> Iterator[_Event]:
    at = {"item_id": _item_id(part, index, ids), "output_index": index}
    for piece in part.pieces:
        yield "response.function_call_arguments.delta", {**at, "delta": piece.text}, piece.tokens
    done = {**at, "name": part.name, "arguments": part.text}
    yield "response.function_call_arguments.done", done, 0
