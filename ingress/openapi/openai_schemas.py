"""OpenAI's surface in the document: its schemas, from the types that `ingress.openai` works with."""

from collections.abc import Mapping

from msgspec import Struct

from ingress.openai import shapes
from ingress.openai.params import ChatBody, ResponseBody, schemas_of_others
from ingress.openapi.describe import Schema, nullable, record, ref
from ingress.openapi.schemas import of_model, of_struct
from shared.config import Settings

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
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
