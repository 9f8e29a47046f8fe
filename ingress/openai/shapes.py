"""Jobs as OpenAI's API shows them: responses, items, chat completions, models. Pure; types as in the `openai` package.

Members that OpenAI has and we cannot fill are left out where its types allow that; one is ours, `switchboard`.
Times are Unix seconds.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ingress.openai.naming import item_id, shown_conversation
from shared.jobs import Degraded, JobRecord, Usage
from shared.responses import Reason, Status, incomplete_reason, response_id, status_of
from shared.wire import Asked, Said

_ERROR_CODES = {"upstream_rate_limited": "rate_limit_exceeded", "budget_exhausted": "rate_limit_exceeded"}
"""OpenAI's set is closed; whatever is nothing of it is a `server_error`."""
_ASKED = Asked()


class OutputText(msgspec.Struct, frozen=True):
    text: str
    type: Literal["output_text"] = "output_text"
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class InputTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(msgspec.Struct, frozen=True):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str
    """Begins with our own code of the error."""


class IncompleteDetails(msgspec.Struct, frozen=True):
    reason: Literal["max_output_tokens", "content_filter"]


class ConversationShown(msgspec.Struct, frozen=True):
    id: str


class NotFromModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """Said of an answer that no model gave to this question, in a member of our own, `switchboard`: OpenAI has no word
    for it, its SDKs keep members that they do not know, and `metadata` is the caller's."""

    degraded: Degraded | None = None
    cache: str | None = None
    """`exact`: from the same question asked before."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as a response."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | UnsetType = UNSET
    status: Status
    background: bool
    model: str
    """The agent's id."""
    output: list[OutputMessage]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    conversation: ConversationShown | None
    """Every response belongs to one."""
    previous_response_id: str | None
    usage: ResponseUsage | None
    user: str | None
    parallel_tool_calls: bool = False
    tool_choice: Literal["auto"] = "auto"
    tools: list[Any] = []
    switchboard: NotFromModel | UnsetType = UNSET
    """Ours; only where there is something to say."""


def response_of(record: JobRecord) -> Response:
    asked, status = record.asked or _ASKED, status_of(record)
    ended = status not in ("queued", "in_progress")
    reason = incomplete_reason(record) if status == "incomplete" else None
    completed_at = record.finished_us // 1_000_000 if status == "completed" and record.finished_us else UNSET
    return Response(
        id=response_id(record.id),
        created_at=record.created_us // 1_000_000,
        completed_at=completed_at,
        status=status,
        background=asked.background,
        model=record.agent,
        output=[] if record.reply is None else [output_message(record, record.reply)],
        error=error_of(record) if status == "failed" else None,
        incomplete_details=None if reason is None else IncompleteDetails(reason),
        instructions=asked.instructions,
        max_output_tokens=asked.max_output_tokens,
        metadata={name: _as_text(value) for name, value in record.metadata.items()},
        conversation=ConversationShown(shown_conversation(record.conversation_id)),
        previous_response_id=asked.previous_response_id,
        usage=usage_of(record.usage) if ended else None,
        user=record.user_id,
        switchboard=not_from_model(record),
    )


def not_from_model(record: JobRecord) -> NotFromModel | UnsetType:
    """Unset for an answer that a model gave to this question."""
    if record.degraded is None and record.cache is None:
        return UNSET
    return NotFromModel(record.degraded, record.cache)


def begun(record: JobRecord, status: Literal["queued", "in_progress"]) -> Response:
    """The response as it was before there was anything of an answer, whatever has become of it since."""
    whole = response_of(record)
    return msgspec.structs.replace(
        whole,
        status=status,
        output=[],
        error=None,
        incomplete_details=None,
        usage=None,
        completed_at=UNSET,
        switchboard=UNSET,
    )


def output_message(
    record: JobRecord, text: str | None, status: Literal["in_progress", "completed", "incomplete"] | None = None
) -> OutputMessage:
    """The one item there is. `text` None: nothing of it is there yet."""
    if status is None:
        status = "incomplete" if status_of(record) == "incomplete" else "completed"
    return OutputMessage(id=item_id(record.id), status=status, content=[] if text is None else [OutputText(text)])


def error_of(record: JobRecord) -> ResponseError:
    """Of a job that ended without an answer."""
    if record.error is None:
        return ResponseError("server_error", "The job ended without an answer.")
    code = "invalid_prompt" if record.error.code == "refusal" else _ERROR_CODES.get(record.error.code, "server_error")
    return msgspec.convert({"code": code, "message": f"{record.error.code}: {record.error.message}"}, ResponseError)


def usage_of(usage: Usage | None) -> ResponseUsage:
    """Zeros for an answer that no model was asked for."""
    told = usage or Usage()
    return ResponseUsage(
        input_tokens=told.input_tokens,
        input_tokens_details=InputTokensDetails(told.cached_tokens, told.cache_write_tokens),
        output_tokens=told.output_tokens,
        output_tokens_details=OutputTokensDetails(told.reasoning_tokens),
        total_tokens=told.input_tokens + told.output_tokens,
    )


def input_items(job_id: str, said: list[Said]) -> list[dict[str, Any]]:
    """What was asked, oldest first."""
    return [
        {
            "id": item_id(job_id, n),
            "type": "message",
            "role": each.role,
            "status": "completed",
            "content": [_input_part(each)],
        }
        for n, each in enumerate(said)
    ]


def _input_part(said: Said) -> dict[str, Any]:
    if said.role == "user":
        return {"type": "input_text", "text": said.content}
    return {"type": "output_text", "text": said.content, "annotations": []}


def _as_text(value: Any) -> str:
    """Metadata that came through our own API may be numbers; here all are texts."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


FINISHES: dict[Reason | None, Literal["stop", "length", "content_filter"]] = {
    None: "stop",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}


def chat_completion(record: JobRecord) -> dict[str, Any]:
    """Of a job that ended with an answer, however much of one."""
    message = {"role": "assistant", "content": record.reply or "", "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": FINISHES[incomplete_reason(record)],
    }
    whole = {**chat_head(record, "chat.completion"), "choices": [choice], "usage": chat_usage(record.usage)}
    return {**whole, **chat_mark(record)}


def chat_mark(record: JobRecord) -> dict[str, Any]:
    """The member of our own of a chat completion, and of the chunk that ends it; empty without anything to say."""
    mark = not_from_model(record)
    return {} if isinstance(mark, UnsetType) else {"switchboard": mark}


def chat_head(record: JobRecord, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{record.id}",
        "object": kind,
        "created": record.created_us // 1_000_000,
        "model": record.agent,
    }


def chat_usage(usage: Usage | None) -> dict[str, Any]:
    told = usage or Usage()
    return {
        "prompt_tokens": told.input_tokens,
        "completion_tokens": told.output_tokens,
        "total_tokens": told.input_tokens + told.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": told.cached_tokens,
            "cache_write_tokens": told.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": told.reasoning_tokens},
    }


def model(agent_id: str) -> dict[str, Any]:
    return {"id": agent_id, "object": "model", "created": 0, "owned_by": "switchboard"}
