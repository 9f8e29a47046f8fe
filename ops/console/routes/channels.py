"""`/v1/channels`: the messengers that a tenant's users write from, and their credentials.

An `admin` key reaches its own tenant's, an operator all. What is not the visitor's is a 404, whether or not it exists.
No answer ever holds a credential.
"""

from typing import Annotated

import msgspec
import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.channels.asks import (
    CHANNEL_ID,
    ChangeChannelBody,
    ChannelsQuery,
    CreateChannelBody,
    KeptQuery,
    RotateChannelBody,
    is_channel_id,
)
from ops.channels.books import ChannelWish, NewChannel, no_such_channel
from ops.console.asks import after_cursor, body_of, cursor_of, query_of
from ops.console.state import Console, Visitor, console_of
from shared.errors import InvalidRequest

log = structlog.get_logger(__name__)
_NO_STORE = {"cache-control": "no-store"}
_Id = Annotated[str, msgspec.Meta(pattern=CHANNEL_ID)]


class ChannelsResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, asked = console_of(request), query_of(request, ChannelsQuery)
        visitor = await console.authenticate(request, tenant=asked.tenant)
        found = await console.channels.page(visitor.tenant, after_cursor(asked.cursor, _Id), asked.limit + 1)
        page = found[: asked.limit]
        more = cursor_of(page[-1].id) if len(found) > asked.limit else None
        body = {"object": "list", "data": [channel.resource() for channel in page], "next_cursor": more}
        return json_response(body, 200, _NO_STORE)

    async def post(self, request: Request) -> Response:
        console = console_of(request)
        visitor = await console.authenticate(request)
        body = await body_of(request, CreateChannelBody, console.settings.max_body_bytes)
        if body.tenant is not None:
            visitor = await console.authenticate(request, tenant=body.tenant)
        if visitor.tenant is None:
            raise InvalidRequest("Whose is it?", faults=[{"field": "tenant", "message": "must be given"}])
        new = NewChannel(
            body.kind,
            body.name or body.kind,
            body.agent,
            body.domain,
            body.feature,
            body.settings,
            body.credentials,
        )
        made = await console.channels.create(visitor.tenant, new, visitor.by)
        log.info("channel_created", of=made.tenant, channel=made.id, kind=made.kind, by=visitor.by)
        return json_response(made.resource(), 201, {**_NO_STORE, "location": f"/v1/channels/{made.id}"})


class ChannelResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, visitor, channel_id = await _of_channel(request)
        return json_response((await console.channels.find(visitor.tenant, channel_id)).resource(), 200, _NO_STORE)

    async def patch(self, request: Request) -> Response:
        console, visitor, channel_id = await _of_channel(request)
        body = await body_of(request, ChangeChannelBody, console.settings.max_body_bytes)
        given = {name: getattr(body, name) for name in ("name", "agent", "domain", "feature")}
        columns = {name: value for name, value in given.items() if value is not None}
        wish = ChannelWish(body.settings, body.credentials, columns, body.version)
        changed = await console.channels.change(visitor.tenant, channel_id, wish, visitor.by)
        log.info("channel_changed", of=changed.tenant, channel=channel_id, by=visitor.by, version=changed.version)
        return json_response(changed.resource(), 200, _NO_STORE)

    async def delete(self, request: Request) -> Response:
        console, visitor, channel_id = await _of_channel(request)
        removed = await console.channels.remove(visitor.tenant, channel_id, visitor.by)
        log.info("channel_removed", of=removed.tenant, channel=channel_id, by=visitor.by)
        return json_response(removed.resource(), 200, _NO_STORE)


async def rotate_channel(request: Request) -> Response:
    console, visitor, channel_id = await _of_channel(request)
    body = await body_of(request, RotateChannelBody, console.settings.max_body_bytes)
    changed = await console.channels.rotate(visitor.tenant, channel_id, body.credentials, body.keep, visitor.by)
    log.info("channel_rotated", of=changed.tenant, channel=channel_id, by=visitor.by, names=sorted(body.credentials))
    return json_response(changed.resource(), 200, _NO_STORE)


async def resume_channel(request: Request) -> Response:
    console, visitor, channel_id = await _of_channel(request)
    resumed = await console.channels.resume(visitor.tenant, channel_id, visitor.by)
    log.info("channel_resumed", of=resumed.tenant, channel=channel_id, by=visitor.by)
    return json_response(resumed.resource(), 200, _NO_STORE)


async def list_kept(request: Request) -> Response:
    console, visitor, channel_id = await _of_channel(request)
    asked = query_of(request, KeptQuery)
    kept = await console.channels.kept(visitor.tenant, channel_id, asked.limit)
    return json_response({"object": "list", "data": [one.resource() for one in kept]}, 200, _NO_STORE)


async def _of_channel(request: Request) -> tuple[Console, Visitor, str]:
    console, channel_id = console_of(request), request.path_params["channel_id"]
    visitor = await console.authenticate(request)
    if not is_channel_id(channel_id):
        raise no_such_channel()
    return console, visitor, channel_id
