"""`/v1/users/{user_id}/profile` and `/facts`: what is known of a user, to be seen, put right and erased.

A tenant's `admin` key reaches its own users. An operator names the tenant (`?tenant=`).
"""

import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.asks import body_of, query_of
from ops.console.state import Console, Visitor, console_of, tenant_of
from ops.profiles.asks import FactBody, FactsQuery, ProfileBody, UserQuery

log = structlog.get_logger(__name__)
_NO_STORE = {"cache-control": "no-store"}


class ProfileResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        console, _, tenant, user = await _of_user(request)
        return json_response((await console.profiles.profile(tenant, user)).resource(), 200, _NO_STORE)

    async def patch(self, request: Request) -> Response:
        console, visitor, tenant, user = await _of_user(request)
        body = await body_of(request, ProfileBody, console.settings.max_body_bytes)
        changed = await console.profiles.change_profile(tenant, user, body, visitor.by)
        log.info("profile_changed", of=tenant, by=visitor.by)
        return json_response(changed.resource(), 200, _NO_STORE)

    async def delete(self, request: Request) -> Response:
        """Repeating it changes nothing."""
        console, visitor, tenant, user = await _of_user(request)
        erased = await console.profiles.erase_profile(tenant, user, visitor.by)
        log.info("profile_erased", of=tenant, by=visitor.by)
        return json_response(erased.resource(), 200, _NO_STORE)


class FactsResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        asked = query_of(request, FactsQuery)
        console, _, tenant, user = await _reached(request, asked)
        found = await console.profiles.facts(tenant, user, past=asked.past)
        body = {"object": "list", "data": [fact.resource() for fact in found]}
        return json_response(body, 200, _NO_STORE)

    async def delete(self, request: Request) -> Response:
        console, visitor, tenant, user = await _of_user(request)
        erased = await console.profiles.erase_facts(tenant, user, None)
        log.info("facts_erased", of=tenant, by=visitor.by, erased=erased)
        return json_response({"object": "facts.erased", "erased": erased}, 200, _NO_STORE)


class FactResource(HTTPEndpoint):
    async def put(self, request: Request) -> Response:
        console, visitor, tenant, user = await _of_user(request)
        body = await body_of(request, FactBody, console.settings.max_body_bytes)
        fact = await console.profiles.put_fact(tenant, user, request.path_params["topic"], body.text, visitor.by)
        log.info("fact_written", of=tenant, by=visitor.by)
        return json_response(fact.resource(), 200, _NO_STORE)

    async def delete(self, request: Request) -> Response:
        console, visitor, tenant, user = await _of_user(request)
        erased = await console.profiles.erase_facts(tenant, user, request.path_params["topic"])
        log.info("facts_erased", of=tenant, by=visitor.by, erased=erased)
        return json_response({"object": "facts.erased", "erased": erased}, 200, _NO_STORE)


async def _of_user(request: Request) -> tuple[Console, Visitor, str, str]:
    return await _reached(request, query_of(request, UserQuery))


async def _reached(request: Request, asked: UserQuery) -> tuple[Console, Visitor, str, str]:
    """The user in the path, and the tenant whose it is."""
    console = console_of(request)
    visitor = await console.authenticate(request, tenant=asked.tenant)
    return console, visitor, tenant_of(visitor), request.path_params["user_id"]
