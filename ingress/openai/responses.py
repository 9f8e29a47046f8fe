"""`/v1/responses`: ask, look, follow, cancel, delete. A response is a job under another name.

A plain request waits for its answer, `background` does not, `stream` follows it. Whoever goes away stops nothing.
Deleting hides a response from its readers; the conversation, and the books, keep what was said and paid.
"""

import re
from functools import partial

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.auth import Caller
from ingress.openai.asking import Taken, answered, find, repeat_of, stream, take, visible
from ingress.openai.branching import at_place, place_of
from ingress.openai.failures import failure_of
from ingress.openai.naming import conversation_id_of
from ingress.openai.parsing import Question, parse_response
from ingress.openai.shapes import input_items, response_of
from ingress.openai.stream import ResponseFrames
from ingress.requests import read_body
from ingress.responses import json_response
from ingress.state import Ingress, ingress_of
from ingress.waiting import ended_within
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.responses import response_id, status_of
from shared.wire import Said

CANCEL_WAIT_S = 5.0
"""A running job is told of its cancellation with its worker's next beat; most are over within this."""
MAX_ITEMS = 100
_NUMBER = re.compile(r"[0-9]{1,15}")
_NO_STORE = {"cache-control": "no-store"}


async def create_response(request: Request) -> Response:
    ingress = ingress_of(request)
    caller = await ingress.authenticate(request)
    question = parse_response(await read_body(request, ingress.settings.max_body_bytes), ingress.settings)
    taken = await _taken(request, ingress, caller, question)
    record = taken.record
    if question.stream:
        return await stream(ingress, record, partial(ResponseFrames, record, -1), taken.headers)
    if not question.asked.background:
        record = await answered(request, ingress, record)
        if status_of(record) == "failed":
            raise failure_of(record)
    return json_response(response_of(record), headers=taken.headers)


async def _taken(request: Request, ingress: Ingress, caller: Caller, question: Question) -> Taken:
    if question.asked.previous_response_id is None:
        named = question.conversation_id
        conversation_id = uuid7() if named is None else conversation_id_of(named)
        return await take(request, ingress, caller, question, conversation_id=conversation_id)
    previous = await _previous(ingress, caller, question.asked.previous_response_id)
    repeat = repeat_of(request, caller, question)
    async with place_of(ingress, previous, question.user_id, repeat) as place:
        placed = at_place(question, place)
        return await take(request, ingress, caller, placed, conversation_id=place.conversation_id)


async def _previous(ingress: Ingress, caller: Caller, previous: str) -> JobRecord:
    try:
        return await visible(ingress, caller.tenant, previous)
    except NotFound:
        raise NotFound(
            f"Previous response with id '{previous}' not found.",
            code="previous_response_not_found",
            param="previous_response_id",
        ) from None


class OneResponse(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        ingress = ingress_of(request)
        caller = await ingress.authenticate(request)
        record = await visible(ingress, caller.tenant, request.path_params["response_id"])
        if _flag(request, "stream") and request.method == "GET":
            after = _number(request, "starting_after", default=-1)
            return await stream(ingress, record, partial(ResponseFrames, record, after), {})
        return json_response(response_of(record), headers=_NO_STORE)

    async def delete(self, request: Request) -> Response:
        """Postgres first: what it does not know would come back when Redis forgets."""
        ingress = ingress_of(request)
        caller = await ingress.authenticate(request)
        record = await visible(ingress, caller.tenant, request.path_params["response_id"])
        await ingress.archive.forget_response(record.tenant, record.id)
        await ingress.intake.forget(record.tenant, record.id)
        return json_response({"id": response_id(record.id), "object": "response", "deleted": True}, headers=_NO_STORE)


async def cancel_response(request: Request) -> Response:
    """The response as it is then; one that has ended stays as it is."""
    ingress = ingress_of(request)
    caller = await ingress.authenticate(request)
    record = await visible(ingress, caller.tenant, request.path_params["response_id"])
    reread = partial(find, ingress, caller.tenant, record.id)
    if not record.over and await ingress.intake.cancel(caller.tenant, record.id) != "unknown":
        record = await reread() or record
        record = await ended_within(ingress.notices, request, record, reread, CANCEL_WAIT_S)
    return json_response(response_of(record), headers=_NO_STORE)


async def list_input_items(request: Request) -> Response:
    ingress = ingress_of(request)
    caller = await ingress.authenticate(request)
    limit = _number(request, "limit", default=20)
    if not 1 <= limit <= MAX_ITEMS:
        raise _unusable("limit", f"must be from 1 to {MAX_ITEMS}")
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _unusable("order", "must be asc or desc")
    record = await visible(ingress, caller.tenant, request.path_params["response_id"])
    items = input_items(record.id, await _asked(ingress, record))
    if order == "desc":
        items.reverse()
    if after := request.query_params.get("after"):
        ids = [item["id"] for item in items]
        if after not in ids:
            raise _unusable("after", "must be the id of an item of this response")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    first, last = (page[0]["id"], page[-1]["id"]) if page else ("", "")
    body = {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": len(items) > limit}
    return json_response(body, headers=_NO_STORE)


async def _asked(ingress: Ingress, record: JobRecord) -> list[Said]:
    """From the payload until the job has ended, then from the books."""
    payload = None if record.state.ended else await ingress.intake.payload(record.id)
    if payload is not None:
        given = payload.asked.given[payload.asked.branched :] if payload.asked else []
        return [*given, Said("user", payload.message)]
    said = await ingress.archive.response_input(record.tenant, record.id)
    if said is None:
        raise Unavailable("what was asked is still on its way to Postgres")
    return said


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise _unusable(name, "must be true or false")
    return value == "true"


def _number(request: Request, name: str, *, default: int) -> int:
    value = request.query_params.get(name)
    if value is None:
        return default
    if not _NUMBER.fullmatch(value):
        raise _unusable(name, "must be a whole number")
    return int(value)


def _unusable(name: str, message: str) -> InvalidRequest:
    return InvalidRequest("The query has faults.", faults=[{"field": name, "message": message}])
