"""`/v1/tenants` and `/v1/keys`: who is served, with which settings, by which keys.

Operators reach every tenant and may do everything. An `admin` key sees its own tenant, changes what its plan allows and
makes keys that can do no more than itself; anything of another tenant is a 403, whether or not it exists.
"""

from typing import Annotated
from uuid import UUID

import msgspec
import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.asks import after_cursor, body_of, cursor_of, query_of
from ops.console.state import Console, Visitor, console_of
from ops.tenants.asks import TENANT_ID, ChangeBody, CreateBody, KeyBody, TenantsQuery, is_key_id, is_tenant_id
from ops.tenants.books import Wish, no_such_tenant
from shared.errors import Forbidden, NotFound

log = structlog.get_logger(__name__)
_NO_STORE = {"cache-control": "no-store"}
_Id = Annotated[str, msgspec.Meta(pattern=TENANT_ID)]


class TenantsResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, asked = console_of(request), query_of(request, TenantsQuery)
        visitor = await console.authenticate(request)
        after = after_cursor(asked.cursor, _Id)
        found = await console.tenants.page(visitor.tenant, after, asked.limit + 1)
        page = found[: asked.limit]
        more = cursor_of(page[-1].id) if len(found) > asked.limit else None
        body = {"object": "list", "data": [tenant.resource() for tenant in page], "next_cursor": more}
        return json_response(body, 200, _NO_STORE)

    async def post(self, request: Request) -> Response:
        console = console_of(request)
        visitor = await console.authenticate(request)
        _check_operator(visitor)
        body = await body_of(request, CreateBody, console.settings.max_body_bytes)
        made = await console.tenants.create(body.id, body.name, body.settings, visitor.by)
        log.info("tenant_created", of=made.id, by=visitor.by)
        return json_response(made.resource(), 201, {**_NO_STORE, "location": f"/v1/tenants/{made.id}"})


class TenantResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, _, tenant = await _of_tenant(request)
        return json_response((await console.tenants.find(tenant)).resource(), 200, _NO_STORE)

    async def patch(self, request: Request) -> Response:
        console, visitor, tenant = await _of_tenant(request)
        body = await body_of(request, ChangeBody, console.settings.max_body_bytes)
        wish = Wish(body.settings, body.name, body.settings_version)
        changed = await console.tenants.change(tenant, wish, visitor.by, within_plan=not visitor.operator)
        log.info("tenant_changed", of=tenant, by=visitor.by, version=changed.settings_version)
        return json_response(changed.resource(), 200, _NO_STORE)


async def disable_tenant(request: Request) -> Response:
    return await _switched(request, disabled=True)


async def enable_tenant(request: Request) -> Response:
    return await _switched(request, disabled=False)


async def list_changes(request: Request) -> Response:
    console, _, tenant = await _of_tenant(request)
    asked = query_of(request, TenantsQuery)
    after = after_cursor(asked.cursor, UUID)
    found = await console.tenants.changes(tenant, None if after is None else str(after), asked.limit + 1)
    page = found[: asked.limit]
    more = cursor_of(page[-1].id) if len(found) > asked.limit else None
    body = {"object": "list", "data": [change.resource() for change in page], "next_cursor": more}
    return json_response(body, 200, _NO_STORE)


class KeysResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, _, tenant = await _of_tenant(request)
        keys = await console.tenants.keys_of(tenant)
        return json_response({"object": "list", "data": [key.resource() for key in keys]}, 200, _NO_STORE)

    async def post(self, request: Request) -> Response:
        """The answer is the only one that ever holds the key."""
        console, visitor, tenant = await _of_tenant(request)
        body = await body_of(request, KeyBody, console.settings.max_body_bytes)
        if "operator" in body.scopes:
            _check_operator(visitor)
        made = await console.tenants.create_key(tenant, body.scopes, body.label, body.expires_us, visitor.by)
        log.info("key_created", of=tenant, made=made.row.id, by=visitor.by)
        return json_response(made.resource(), 201, _NO_STORE)


class KeyResource(HTTPEndpoint):
    async def delete(self, request: Request) -> Response:
        console, key_id = console_of(request), request.path_params["key_id"]
        visitor = await console.authenticate(request)
        if not is_key_id(key_id):
            raise NotFound("There is no such key.")
        revoked = await console.tenants.revoke_key(visitor.tenant, key_id, visitor.by)
        log.info("key_revoked", of=revoked.tenant, revoked=key_id, by=visitor.by)
        return json_response(revoked.resource(), 200, _NO_STORE)


async def _of_tenant(request: Request) -> tuple[Console, Visitor, str]:
    """The tenant in the path, which the visitor may see."""
    console, tenant = console_of(request), request.path_params["tenant_id"]
    visitor = await console.authenticate(request, tenant=tenant)
    if not is_tenant_id(tenant):
        raise no_such_tenant()
    return console, visitor, tenant


async def _switched(request: Request, *, disabled: bool) -> Response:
    console, visitor, tenant = await _of_tenant(request)
    _check_operator(visitor)
    switched = await console.tenants.switch(tenant, visitor.by, disabled=disabled)
    log.info("tenant_disabled" if disabled else "tenant_enabled", of=tenant, by=visitor.by)
    return json_response(switched.resource(), 200, _NO_STORE)


def _check_operator(visitor: Visitor) -> None:
    if not visitor.operator:
        raise Forbidden("This API key lacks the scope `operator`.")
