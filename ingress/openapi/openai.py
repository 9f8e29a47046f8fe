"""OpenAI's surface in the document: its operations and schemas, from the types that `ingress.openai` works with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace as changed

from ingress.openai import shapes
from ingress.openai.failures import FAILURES, failure_of, still_running
from ingress.openai.params import ChatBody, ResponseBody, schemas_of_others
from ingress.openai.parsing import parse_chat, parse_response
from ingress.openapi import pieces
from ingress.openapi.describe import (
    JSON,
    Answer,
    Body,
    Header,
    Operation,
    Parameter,
    Schema,
    listing,
    nullable,
    record,
    ref,
)
from ingress.openapi.schemas import of_model, of_struct
from ingress.state import Ingress
from shared.config import Settings
from shared.jobs import JobError, JobRecord, JobState
from shared.responses import response_id

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_RESPONSE_ID = Parameter(
    name="response_id",
    where="path",
    description="`resp_` and the id of a job.",
    schema={"type": "string", "pattern": r"^resp_[0-9a-f-]{36}$"},
    example=response_id(pieces.EXAMPLE_ID),
)
_REPEAT = (
    Parameter(
        name="Idempotency-Key",
        where="header",
        description="Makes a retry safe. 1 to 255 visible ASCII characters, bare or as a quoted string.",
        schema={"type": "string", "pattern": r'^(?:[!#-~][!-~]{0,254}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'},
    ),
    Parameter(
        name="X-Stainless-Retry-Count",
        where="header",
        description="Sent by SDKs: more than `0` marks a retry, which is recognised without a key by its body.",
        schema=_TEXT,
    ),
)
_REPLAYED = Header(description="This is a repeat.", schema={"const": "true"}, always=False)
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
_STRUCTS: Mapping[str, type[Struct]] = {
    "ResponseObject": shapes.Response,
    "OutputMessage": shapes.OutputMessage,
    "OutputText": shapes.OutputText,
    "ResponseUsage": shapes.ResponseUsage,
    "InputTokensDetails": shapes.InputTokensDetails,
    "OutputTokensDetails": shapes.OutputTokensDetails,
    "ResponseError": shapes.ResponseError,
    "IncompleteDetails": shapes.IncompleteDetails,
    "ConversationShown": shapes.ConversationShown,
    "NotFromModel": shapes.NotFromModel,
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


def openai_components(settings: Settings) -> Mapping[str, Schema]:
    bodies = {**of_model(ResponseBody), **of_model(ChatBody)}
    for name, api in (("ResponseBody", "responses"), ("ChatBody", "chat")):
        bodies[name]["properties"].update(schemas_of_others(api))
    bodies["ResponseBody"]["properties"]["input"] = ref("ResponseInput")
    bodies["ChatBody"]["properties"]["messages"] = ref("ChatMessages")
    said = {"anyOf": [_TEXT, {"type": "array", "items": _PART}]}
    message = record({"role": {"enum": ["user", "assistant", "system", "developer"]}, "content": said})
    messages = {
        "type": "array",
        "minItems": 1,
        "items": {**message, "additionalProperties": False},
        "description": "Ends with what the user says. System and developer messages become instructions.",
    }
    structs = {name: of_struct(kind) for name, kind in _STRUCTS.items()}
    structs["ResponseObject"]["required"].remove("completed_at")  # of a completed one only
    structs["ResponseObject"]["required"].remove("switchboard")
    structs["NotFromModel"]["required"] = []
    return {
        **bodies,
        **structs,
        "ResponseInput": {"anyOf": [{"type": "string", "maxLength": settings.max_message_chars}, messages]},
        "ChatMessages": messages,
        "ChatCompletion": _chat_completion(),
        "Model": _MODEL,
        "OpenAIError": _ERROR,
    }


def _chat_completion() -> Schema:
    whole = record(_CHAT_COMPLETION)
    return {**whole, "properties": {**whole["properties"], "switchboard": ref("NotFromModel")}}


_PART: Schema = record({"type": {"enum": ["text", "input_text", "output_text"]}, "text": _TEXT})
_ERROR: Schema = record(
    {"error": record({"message": _TEXT, "type": _TEXT, "param": nullable(_TEXT), "code": nullable(_TEXT)})},
    description="An error in OpenAI's form.",
)
_MODEL: Schema = record(
    {
        "id": {"type": "string", "description": "An agent's id."},
        "object": {"const": "model"},
        "created": _COUNT,
        "owned_by": _TEXT,
    }
)
_CHAT_COMPLETION: Mapping[str, Schema] = {
    "id": _TEXT,
    "object": {"const": "chat.completion"},
    "created": _COUNT,
    "model": _TEXT,
    "choices": {
        "type": "array",
        "items": record(
            {
                "index": {"const": 0},
                "message": record({"role": {"const": "assistant"}, "content": _TEXT}),
                "finish_reason": {"enum": list(shapes.FINISHES.values())},
            }
        ),
    },
    "usage": record({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT}),
}


def openai_operations(done: JobRecord, rates: Mapping[str, Header]) -> Mapping[tuple[str, str], Operation]:
    """`done` is an example of a job that has succeeded, `rates` are headers of what is limited."""
    response, chat = to_builtins(shapes.response_of(done)), shapes.chat_completion(done)
    failed = [
        failure_of(changed(done, state=JobState.DEAD, reply=None, error=JobError(code, "\u2026"))) for code in FAILURES
    ]
    waits = (*failed, still_running(done, 120))
    shown = Answer(
        description="The response.",
        schema=ref("ResponseObject"),
        headers=pieces.NO_STORE,
        examples={"done": response},
    )
    asking = replace(
        shown,
        headers={**pieces.NO_STORE, "Idempotent-Replayed": _REPLAYED},
        or_stream_of=_RESPONSE_EVENT,
        links={
            name: {"operationId": name, "parameters": {"response_id": "$response.body#/id"}}
            for name in ("get_response", "cancel_response", "delete_response", "list_input_items")
        },
    )

    def described(name: str, summary: str, description: str, answer: Answer, **more: Any) -> Operation:
        more = {"raised_by": (Ingress.authenticate,), **more}
        return Operation(
            id=name,
            tag="OpenAI",
            summary=summary,
            description=description,
            answers={200: answer},
            security=("bearer",),
            scope="chat",
            errors="openai",
            **more,
        )

    return {
        ("POST", "/v1/responses"): described(
            "create_response",
            "Ask an agent, as OpenAI's Responses API",
            "Waits for the answer, unless `background` or `stream` is true. Going away stops nothing.",
            asking,
            parameters=_REPEAT,
            body=Body(schema=ref("ResponseBody"), examples=_INPUTS),
            raised_by=(Ingress.authenticate, parse_response),
            raises=waits,
            headers=rates,
        ),
        ("GET", "/v1/responses/{response_id}"): described(
            "get_response",
            "Look at a response, or follow it",
            "With `stream=true` its events from the first one on, or behind the one that `starting_after` names.",
            replace(shown, or_stream_of=_RESPONSE_EVENT),
            parameters=(
                _RESPONSE_ID,
                Parameter(
                    name="stream",
                    where="query",
                    description="Whether to answer with events.",
                    schema={"type": "string", "enum": ["true", "false"]},
                ),
                Parameter(
                    name="starting_after",
                    where="query",
                    description="The `sequence_number` of the last event that was seen.",
                    schema={"type": "string", "pattern": "^[0-9]{1,15}$"},
                ),
            ),
        ),
        ("DELETE", "/v1/responses/{response_id}"): described(
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
        ("POST", "/v1/responses/{response_id}/cancel"): described(
            "cancel_response",
            "Cancel a response",
            "One that has ended stays as it is. One that runs is stopped within seconds.",
            shown,
            parameters=(_RESPONSE_ID,),
        ),
        ("GET", "/v1/responses/{response_id}/input_items"): described(
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
                Parameter(
                    name="limit",
                    where="query",
                    description="From 1 to 100; 20 unless given.",
                    schema={"type": "integer", "minimum": 1, "maximum": 100},
                ),
                Parameter(
                    name="order",
                    where="query",
                    description="`desc` unless given: the last one first.",
                    schema={"type": "string", "enum": ["asc", "desc"]},
                ),
                Parameter(
                    name="after",
                    where="query",
                    description="An item's id: the list begins behind it.",
                    schema=_TEXT,
                ),
            ),
        ),
        ("POST", "/v1/chat/completions"): described(
            "create_chat_completion",
            "Ask an agent, as OpenAI's chat completions",
            "A turn in a conversation of its own, whose history the caller carries.",
            Answer(
                description="The answer.",
                schema=ref("ChatCompletion"),
                headers={**pieces.NO_STORE, "Idempotent-Replayed": _REPLAYED},
                examples={"done": chat},
                or_stream_of=_CHUNK,
            ),
            parameters=_REPEAT,
            body=Body(schema=ref("ChatBody"), examples=_CHATS),
            raised_by=(Ingress.authenticate, parse_chat),
            raises=waits,
            headers=rates,
        ),
        ("GET", "/v1/models"): described(
            "list_models",
            "List the agents as models",
            "As OpenAI lists its models.",
            Answer(description="All agents.", schema=listing(ref("Model"))),
        ),
        ("GET", "/v1/models/{model}"): described(
            "get_model",
            "Look at an agent as a model",
            "Whether there is such an agent.",
            Answer(description="There is.", schema=ref("Model")),
            parameters=(
                Parameter(name="model", where="path", description="An agent's id.", schema=_TEXT, example="support"),
            ),
        ),
    }
