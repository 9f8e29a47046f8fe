"""`/v1/alerts` and `/v1/alert-events`: who wants to be told of what, and what was crossed.

A tenant's `admin` key has its own tenant's rules. An operator has every tenant's (`?tenant=`), and without a tenant the
rules about the deployment as a whole.
"""

from uuid import UUID

import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.alerts.asks import AlertBody, AlertsQuery, EventsQuery
from ops.alerts.books import AlertBooks
from ops.console.asks import after_cursor, asked_tenant, body_of, cursor_of, query_of
from ops.console.state import Console, Visitor, console_of

log = structlog.get_logger(__name__)
_NO_STORE = {"cache-control": "no-store"}


async def list_alerts(request: Request) -> Response:
    console, asked = console_of(request), query_of(request, AlertsQuery)
    visitor = await console.authenticate(request, tenant=asked.tenant)
    found = await console.alerts(visitor).rules(visitor.tenant)
    return json_response({"object": "list", "data": [one.resource() for one in found]}, 200, _NO_STORE)


class AlertResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        _, visitor, books, name = await _of_alert(request)
        return json_response((await books.find(visitor.tenant, name)).resource(), 200, _NO_STORE)

    async def put(self, request: Request) -> Response:
        """Repeating it changes nothing."""
        console, visitor, books, name = await _of_alert(request)
        body = await body_of(request, AlertBody, console.settings.max_body_bytes)
        rule, made = await books.put(visitor.tenant, name, body, visitor.by)
        log.info("alert_set", of=rule.tenant, alert=name, by=visitor.by)
        return json_response(rule.resource(), 201 if made else 200, _NO_STORE)

    async def delete(self, request: Request) -> Response:
        _, visitor, books, name = await _of_alert(request)
        removed = await books.remove(visitor.tenant, name)
        log.info("alert_removed", of=removed.tenant, alert=name, by=visitor.by)
        return json_response(removed.resource(), 200, _NO_STORE)


async def test_alert(request: Request) -> Response:
    _, visitor, books, name = await _of_alert(request)
    event = await books.test(visitor.tenant, name, visitor.by)
    return json_response({"object": "alert.test", "alert": name, "event": event}, 202, _NO_STORE)


async def list_alert_events(request: Request) -> Response:
    console, asked = console_of(request), query_of(request, EventsQuery)
    visitor = await console.authenticate(request, tenant=asked.tenant)
    before = after_cursor(asked.cursor, UUID)
    start = None if before is None else str(before)
    found = await console.alerts(visitor).history(visitor.tenant, start, asked.limit + 1)
    page = found[: asked.limit]
    more = cursor_of(page[-1].id) if len(found) > asked.limit else None
    body = {"object": "list", "data": [one.resource() for one in page], "next_cursor": more}
    return json_response(body, 200, _NO_STORE)


async def _of_alert(request: Request) -> tuple[Console, Visitor, AlertBooks, str]:
    console = console_of(request)
    visitor = await console.authenticate(request, tenant=asked_tenant(request))
    return console, visitor, console.alerts(visitor), request.path_params["name"]
