"""`POST /v1/chat/completions`: one turn in a conversation of its own, whose history the caller carries.

The earlier messages go along as context of this one turn and are written nowhere else, as the caller sends them again
each time.
"""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from ingress.openai.asking import answered, stream, take
from ingress.openai.chunks import ChatFrames
from ingress.openai.failures import failure_of
from ingress.openai.parsing import parse_chat
from ingress.openai.shapes import chat_completion
from ingress.requests import read_body
from ingress.responses import json_response
from ingress.state import ingress_of
from shared.ids import uuid7
from shared.responses import status_of


async def create_chat_completion(request: Request) -> Response:
    ingress = ingress_of(request)
    caller = await ingress.authenticate(request)
    question = parse_chat(await read_body(request, ingress.settings.max_body_bytes), ingress.settings)
    # Nothing can join a conversation that nobody knows: there is nothing to wait for.
    taken = await take(request, ingress, caller, question, conversation_id=uuid7(), policy="queue")
    if question.stream:
        frames = partial(ChatFrames, taken.record, question.include_usage)
        return await stream(ingress, taken.record, frames, taken.headers)
    record = await answered(request, ingress, taken.record)
    if status_of(record) not in ("completed", "incomplete"):
        raise failure_of(record)
    return json_response(chat_completion(record), headers=taken.headers)
