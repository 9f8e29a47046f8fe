"""`/v1/endpoints`, `/v1/webhook-secret` and `/v1/deliveries`: where events go, what became of each, and again.

Whatever belongs to another tenant is the same 404 as what never was. An operator names the tenant (`?tenant=`) where
something is made for one.
"""

from uuid import UUID

import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.asks import after_cursor, asked_tenant, body_of, cursor_of, query_of
from ops.console.state import Console, Visitor, console_of, tenant_of
from ops.deliveries.asks import DeliveriesQuery, EndpointBody, EndpointChange, EndpointsQuery, RotateBody
from ops.deliveries.books import DeliveryBooks, no_such_delivery, no_such_endpoint
from shared.ids import is_uuid

log = structlog.get_logger(__name__)
_NO_STORE = {"cache-control": "no-store"}


class EndpointsResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, asked = console_of(request), query_of(request, EndpointsQuery)
        visitor = await console.authenticate(request, tenant=asked.tenant)
        found = await console.deliveries(visitor).endpoints(visitor.tenant)
        return json_response({"object": "list", "data": [one.resource() for one in found]}, 200, _NO_STORE)

    async def post(self, request: Request) -> Response:
        """The answer is the only one that ever holds the secret."""
        console = console_of(request)
        visitor = await console.authenticate(request, tenant=asked_tenant(request))
        body = await body_of(request, EndpointBody, console.settings.max_body_bytes)
        books, tenant = console.deliveries(visitor), tenant_of(visitor)
        made, secret = await books.create(tenant, body, visitor.by)
        log.info("endpoint_created", of=tenant, endpoint=made.id, by=visitor.by)
        headers = {**_NO_STORE, "location": f"/v1/endpoints/{made.id}"}
        return json_response({**made.resource(), "secret": secret.secret}, 201, headers)


class EndpointResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        _, visitor, books, endpoint_id = await _of_endpoint(request)
        return json_response((await books.endpoint(visitor.tenant, endpoint_id)).resource(), 200, _NO_STORE)

    async def patch(self, request: Request) -> Response:
        console, visitor, books, endpoint_id = await _of_endpoint(request)
        body = await body_of(request, EndpointChange, console.settings.max_body_bytes)
        changed = await books.change(visitor.tenant, endpoint_id, body.model_dump(exclude_none=True))
        log.info("endpoint_changed", of=changed.tenant, endpoint=endpoint_id, by=visitor.by)
        return json_response(changed.resource(), 200, _NO_STORE)

    async def delete(self, request: Request) -> Response:
        _, visitor, books, endpoint_id = await _of_endpoint(request)
        removed = await books.remove(visitor.tenant, endpoint_id)
        log.info("endpoint_removed", of=removed.tenant, endpoint=endpoint_id, by=visitor.by)
        return json_response(removed.resource(), 200, _NO_STORE)


async def rotate_endpoint_secret(request: Request) -> Response:
    console, visitor, books, endpoint_id = await _of_endpoint(request)
    body = await body_of(request, RotateBody, console.settings.max_body_bytes)
    made = await books.rotate(visitor.tenant, endpoint_id, body.overlap_s)
    log.info("secret_rotated", endpoint=endpoint_id, by=visitor.by)
    return json_response(made.resource(), 200, _NO_STORE)


async def rotate_default_secret(request: Request) -> Response:
    console = console_of(request)
    visitor = await console.authenticate(request, tenant=asked_tenant(request))
    body = await body_of(request, RotateBody, console.settings.max_body_bytes)
    tenant = tenant_of(visitor)
    made = await console.deliveries(visitor).rotate_default(tenant, body.overlap_s)
    log.info("secret_rotated", of=tenant, by=visitor.by)
    return json_response(made.resource(), 200, _NO_STORE)


async def list_deliveries(request: Request) -> Response:
    console, asked = console_of(request), query_of(request, DeliveriesQuery)
    visitor = await console.authenticate(request, tenant=asked.tenant)
    before = after_cursor(asked.cursor, UUID)
    wanted = {
        "tenant": visitor.tenant,
        "state": asked.state,
        "endpoint_id": None if asked.endpoint_id is None else str(asked.endpoint_id),
        "job_id": None if asked.job_id is None else str(asked.job_id),
    }
    start = None if before is None else str(before)
    found = await console.deliveries(visitor).page(wanted, start, asked.limit + 1)
    page = found[: asked.limit]
    more = cursor_of(page[-1].id) if len(found) > asked.limit else None
    body = {"object": "list", "data": [one.resource() for one in page], "next_cursor": more}
    return json_response(body, 200, _NO_STORE)


async def get_delivery(request: Request) -> Response:
    visitor, books, delivery_id = await _of_delivery(request)
    return json_response((await books.find(visitor.tenant, delivery_id)).resource(), 200, _NO_STORE)


async def replay_delivery(request: Request) -> Response:
    visitor, books, delivery_id = await _of_delivery(request)
    await books.replay(visitor.tenant, delivery_id)
    log.info("delivery_replayed", delivery=delivery_id, by=visitor.by)
    return json_response((await books.find(visitor.tenant, delivery_id)).resource(), 202, _NO_STORE)


async def _of_endpoint(request: Request) -> tuple[Console, Visitor, DeliveryBooks, str]:
    console, endpoint_id = console_of(request), request.path_params["endpoint_id"]
    visitor = await console.authenticate(request, tenant=asked_tenant(request))
    if not is_uuid(endpoint_id):
        raise no_such_endpoint()
    return console, visitor, console.deliveries(visitor), endpoint_id


async def _of_delivery(request: Request) -> tuple[Visitor, DeliveryBooks, str]:
    console, delivery_id = console_of(request), request.path_params["delivery_id"]
    visitor = await console.authenticate(request, tenant=asked_tenant(request))
    if not is_uuid(delivery_id):
        raise no_such_delivery()
    return visitor, console.deliveries(visitor), delivery_id
