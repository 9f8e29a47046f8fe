"""OpenAI's `POST /v1/chat/completions`.

Usage of a stream comes only when asked for, in a last chunk without choices; every stream ends with `[DONE]`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ops.standin.answer import Answer, Part, Usage
from ops.standin.ask import Ask, Role, Said, Unreadable
from ops.standin.delivery import Frame
from ops.standin.dialects.dialect import ContentPart, Ids, decode, encode, event, text_of
from ops.standin.dialects.openai import OpenAIDialect
from ops.standin.tokenizer import count, count_chat

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[_ToolCall] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Format(msgspec.Struct):
    type: str


class _Request(msgspec.Struct):
    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: Any = None
    response_format: _Format | None = None


_request = msgspec.json.Decoder(_Request)


class Chat(OpenAIDialect):
    operation = "chat"
    id_prefix = "chatcmpl-"

    def read(self, body: bytes) -> Ask:
        request = decode(_request, body)
        if request.stream_options is not None and not request.stream:
            raise Unreadable("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        everything = [_said(message) for message in request.messages]
        system = [message.text for message in everything if message.role == "system"]
        said = tuple(message for message in everything if message.role != "system")
        return Ask(
            model=request.model,
            said=said,
            system="\n".join(system),
            input_tokens=count_chat(message.text for message in everything) + _tools_tokens(request.tools),
            max_tokens=request.max_completion_tokens or request.max_tokens,
            stream=bool(request.stream),
            wants_tools=bool(request.tools) and request.tool_choice != "none",
            wants_json=request.response_format is not None and request.response_format.type.startswith("json"),
            extras={"include_usage": request.stream_options is not None and request.stream_options.include_usage},
        )

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> bytes:
        finish_reason = _finish_reason(answer)
        choice = {"index": 0, "message": _message(answer), "logprobs": None, "finish_reason": finish_reason}
        head = _head(ask, ids, "chat.completion")
        return encode({**head, "choices": [choice], "usage": usage_object(answer.usage)})

    def frames(self, ask: Ask, answer: Answer, ids: Ids) -> Iterator[Frame]:
        include_usage = bool(ask.extras["include_usage"])
        head = _head(ask, ids, "chat.completion.chunk") | ({"usage": None} if include_usage else {})

        def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return event({**head, "choices": [choice]})

        yield Frame(chunk({"role": "assistant", "content": "", "refusal": None}))
        for index, part in enumerate(answer.parts):
            for delta, tokens in _deltas(index, part):
                yield Frame(chunk(delta), tokens)
        yield Frame(chunk({}, _finish_reason(answer)))
        if include_usage:
            yield Frame(event({**head, "choices": [], "usage": usage_object(answer.usage)}))
        yield Frame(b"data: [DONE]\n\n", final=True)


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _said(message: _Message) -> Said:
    """An assistant's earlier tool calls are part of what it said: they are billed as input."""
    functions = [call.function for call in message.tool_calls or () if call.function is not None]
    called = "".join(f"{function.name}{function.arguments}" for function in functions)
    return Said(_ROLES[message.role], text_of(message.content) + called)


def _tools_tokens(tools: list[msgspec.Raw] | None) -> int:
    return sum(count(bytes(tool).decode()) for tool in tools or ())


def _head(ask: Ask, ids: Ids, kind: str) -> dict[str, Any]:
    return {"id": ids.call_id, "object": kind, "created": ids.created_s, "model": ask.model}


def _finish_reason(answer: Answer) -> str:
    """A refusal is an ordinary stop here, told by its own field."""
    return "stop" if answer.finish == "refusal" else answer.finish


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    calls = [_call(part, part.text) for part in answer.parts if part.kind == "tool"]
    if calls:
        return message | {"tool_calls": calls}
    text = "".join(part.text for part in answer.parts)
    return message | ({"refusal": text} if answer.finish == "refusal" else {"content": text})


def _call(part: Part, arguments: str) -> dict[str, Any]:
    function = {"name": part.name, "arguments": arguments}
    return {"id": f"call_{part.call_id}", "type": "function", "function": function}


def _deltas(index: int, part: Part) -> Iterator[tuple[dict[str, Any], int]]:
    if part.kind != "tool":
        field = "refusal" if part.kind == "refusal" else "content"
        yield from (({field: piece.text}, piece.tokens) for piece in part.pieces)
        return
    yield {"tool_calls": [{"index": index, **_call(part, "")}]}, part.head_tokens
    for piece in part.pieces:
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece.text}}]}, piece.tokens
