"""`/v1/users`, `/v1/conversations` and `/v1/erasures`: who there is, all that is held of one, and erasing them.

A tenant's `admin` key reaches its own users. An operator names the tenant (`?tenant=`). Neither lines of the log nor
the answers to an erasure name whoever was erased.
"""

from collections.abc import AsyncIterator

import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ingress.responses import json_response
from ops.console.asks import after_cursor, asked_tenant, cursor_of, query_of
from ops.console.state import Console, console_of, tenant_of
from ops.users.asks import UsersQuery
from ops.users.books import Erasure
from shared.errors import NotFound
from shared.ids import is_uuid

log = structlog.get_logger(__name__)
_NO_STORE = {"cache-control": "no-store"}
ANSWER_WITHIN_S = 10.0
"""An erasure that takes longer is answered 202."""
LINES = "application/jsonl"


async def list_users(request: Request) -> Response:
    console, asked = console_of(request), query_of(request, UsersQuery)
    visitor = await console.authenticate(request, tenant=asked.tenant)
    found = await console.users.page(tenant_of(visitor), after_cursor(asked.cursor, str), asked.limit + 1)
    page = found[: asked.limit]
    more = cursor_of(page[-1].id) if len(found) > asked.limit else None
    body = {"object": "list", "data": [one.resource() for one in page], "next_cursor": more}
    return json_response(body, 200, _NO_STORE)


class UserResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, tenant, _ = await _of_one(request)
        return json_response((await console.users.find(tenant, _user(request))).resource(), 200, _NO_STORE)

    async def delete(self, request: Request) -> Response:
        """Also of a user whom nobody knows: the books may not know them yet. Repeating it erases what came since."""
        console, tenant, by = await _of_one(request)
        done = await console.errands.erase_user(tenant, _user(request), by, within_s=ANSWER_WITHIN_S)
        return _erased(done)


async def export_user(request: Request) -> Response:
    console, tenant, by = await _of_one(request)
    user = _user(request)
    await console.users.find(tenant, user)
    log.info("user_exported", of=tenant, by=by)
    rows: AsyncIterator[bytes] = console.users.rows(tenant, user)
    return StreamingResponse(rows, media_type=LINES, headers=_NO_STORE)


async def erase_conversation(request: Request) -> Response:
    console, tenant, by = await _of_one(request)
    conversation = _named(request, "conversation")
    done = await console.errands.erase_conversation(tenant, conversation, by, within_s=ANSWER_WITHIN_S)
    return _erased(done)


async def get_erasure(request: Request) -> Response:
    console, tenant, _ = await _of_one(request)
    request_id = request.path_params["erasure_id"]
    if not is_uuid(request_id):
        raise NotFound("There is no such erasure.")
    return json_response((await console.users.erasure(tenant, request_id)).resource(), 200, _NO_STORE)


async def _of_one(request: Request) -> tuple[Console, str, str]:
    """The console, the tenant that the request is about, and who asks."""
    console = console_of(request)
    visitor = await console.authenticate(request, tenant=asked_tenant(request))
    return console, tenant_of(visitor), visitor.by


def _user(request: Request) -> str:
    return _named(request, "user")


def _named(request: Request, what: str) -> str:
    """Raises NotFound for what Postgres could not hold."""
    name: str = request.path_params[f"{what}_id"]
    if "\0" in name:
        raise NotFound(f"There is no such {what}.")
    return name


def _erased(erasure: Erasure) -> Response:
    where = {**_NO_STORE, "location": f"/v1/erasures/{erasure.id}"}
    return json_response(erasure.resource(), 200 if erasure.done else 202, where)
