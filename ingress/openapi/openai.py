"""OpenAI's surface in the document: its operations; `openai_schemas.py` has what they take and give."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace as changed

from ingress.openai import shapes
from ingress.openai.failures import FAILURES, failure_of, still_running
from ingress.openai.parsing import parse_chat, parse_response
from ingress.openapi import pieces
from ingress.openapi.asking import IDEMPOTENCY_KEY, RATES, REPLAYED, RETRY_COUNT
from ingress.openapi.components import DONE
from ingress.openapi.describe import JSON, Answer, Body, Operation, Parameter, Schema, listing, record, ref
from ingress.state import Ingress
from shared.jobs import JobError, JobState
from shared.responses import response_id

_TEXT: Schema = {"type": "string"}
_RESPONSE_ID = Parameter(
    name="response_id",
    where="path",
    description="`resp_` and the id of a job.",
    schema={"type": "string", "pattern": r"^resp_[0-9a-f-]{36}$"},
    example=response_id(pieces.EXAMPLE_ID),
)
_INPUTS: Mapping[str, Any] = {
    "a text": {"model": "support", "input": "How do I reset my password?", "background": True},
    "messages": {
        "model": "support",
        "input": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "And on my phone?"}],
        "conversation": "order-77",
    },
}
_CHATS: Mapping[str, Any] = {
    "a chat": {"model": "support", "messages": [{"role": "user", "content": "How do I reset my password?"}]}
}
_RESPONSE_EVENT: Schema = {
    "type": "object",
    "description": "An event of the Responses API; its data has `type` and `sequence_number`.",
    "properties": {"event": _TEXT, "data": {"type": "string", "contentMediaType": JSON}},
    "required": ["event", "data"],
}
_CHUNK: Schema = {
    "type": "object",
    "description": "A `chat.completion.chunk`; the last one is `[DONE]`.",
    "properties": {"data": _TEXT},
    "required": ["data"],
}
_RESPONSE = Answer(
    description="The response.",
    schema=ref("ResponseObject"),
    headers=pieces.NO_STORE,
    examples={"done": to_builtins(shapes.response_of(DONE))},
)
_ASKED = {**pieces.NO_STORE, "Idempotent-Replayed": replace(REPLAYED, always=False)}
"""Headers of an answer that waits for the agent's."""
_WAITS = (
    *[failure_of(changed(DONE, state=JobState.DEAD, reply=None, error=JobError(code, "…"))) for code in FAILURES],
    still_running(DONE, 120),
)
"""What becomes of waiting, where it is not the answer."""


def _operation(name: str, summary: str, description: str, answer: Answer, **more: Any) -> Operation:
    return Operation(
        id=name,
        tag="OpenAI",
        summary=summary,
        description=description,
        answers={200: answer},
        security=("bearer",),
        scope="chat",
        errors="openai",
        raised_by=(Ingress.authenticate, *more.pop("raised_by", ())),
        **more,
    )


def _asking(name: str, summary: str, description: str, answer: Answer, **more: Any) -> Operation:
    """One that takes a message."""
    repeats = (IDEMPOTENCY_KEY, RETRY_COUNT)
    return _operation(name, summary, description, answer, parameters=repeats, raises=_WAITS, headers=RATES, **more)


def _query(name: str, description: str, schema: Schema) -> Parameter:
    return Parameter(name=name, where="query", description=description, schema=schema)


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/responses"): _asking(
        "create_response",
        "Ask an agent, as OpenAI's Responses API",
        "Waits for the answer, unless `background` or `stream` is true. Going away stops nothing.",
        replace(
            _RESPONSE,
            headers=_ASKED,
            or_stream_of=_RESPONSE_EVENT,
            links={
                name: {"operationId": name, "parameters": {"response_id": "$response.body#/id"}}
                for name in ("get_response", "cancel_response", "delete_response", "list_input_items")
            },
        ),
        body=Body(schema=ref("ResponseBody"), examples=_INPUTS),
        raised_by=(parse_response,),
    ),
    ("GET", "/v1/responses/{response_id}"): _operation(
        "get_response",
        "Look at a response, or follow it",
        "With `stream=true` its events from the first one on, or behind the one that `starting_after` names.",
        replace(_RESPONSE, or_stream_of=_RESPONSE_EVENT),
        parameters=(
            _RESPONSE_ID,
            _query("stream", "Whether to answer with events.", {"type": "string", "enum": ["true", "false"]}),
            _query(
                "starting_after",
                "The `sequence_number` of the last event that was seen.",
                {"type": "string", "pattern": "^[0-9]{1,15}$"},
            ),
        ),
    ),
    ("DELETE", "/v1/responses/{response_id}"): _operation(
        "delete_response",
        "Hide a response",
        "It cannot be retrieved or gone on with any more. Its conversation and the books keep what was said.",
        Answer(
            description="It is hidden.",
            schema=record({"id": _TEXT, "object": {"const": "response"}, "deleted": {"const": True}}),
            headers=pieces.NO_STORE,
        ),
        parameters=(_RESPONSE_ID,),
    ),
    ("POST", "/v1/responses/{response_id}/cancel"): _operation(
        "cancel_response",
        "Cancel a response",
        "One that has ended stays as it is. One that runs is stopped within seconds.",
        _RESPONSE,
        parameters=(_RESPONSE_ID,),
    ),
    ("GET", "/v1/responses/{response_id}/input_items"): _operation(
        "list_input_items",
        "List what was asked",
        "The messages of the request, without instructions.",
        Answer(
            description="The items.",
            schema=listing({"type": "object"}, first_id=_TEXT, last_id=_TEXT, has_more={"type": "boolean"}),
            headers=pieces.NO_STORE,
        ),
        parameters=(
            _RESPONSE_ID,
            _query("limit", "From 1 to 100; 20 unless given.", {"type": "integer", "minimum": 1, "maximum": 100}),
            _query("order", "`desc` unless given: the last one first.", {"type": "string", "enum": ["asc", "desc"]}),
            _query("after", "An item's id: the list begins behind it.", _TEXT),
        ),
    ),
    ("POST", "/v1/chat/completions"): _asking(
        "create_chat_completion",
        "Ask an agent, as OpenAI's chat completions",
        "A turn in a conversation of its own, whose history the caller carries.",
        Answer(
            description="The answer.",
            schema=ref("ChatCompletion"),
            headers=_ASKED,
            examples={"done": shapes.chat_completion(DONE)},
            or_stream_of=_CHUNK,
        ),
        body=Body(schema=ref("ChatBody"), examples=_CHATS),
        raised_by=(parse_chat,),
    ),
    ("GET", "/v1/models"): _operation(
        "list_models",
        "List the agents as models",
        "As OpenAI lists its models.",
        Answer(description="All agents.", schema=listing(ref("Model"))),
    ),
    ("GET", "/v1/models/{model}"): _operation(
        "get_model",
        "Look at an agent as a model",
        "Whether there is such an agent.",
        Answer(description="There is.", schema=ref("Model")),
        parameters=(
            Parameter(name="model", where="path", description="An agent's id.", schema=_TEXT, example="support"),
        ),
    ),
}
