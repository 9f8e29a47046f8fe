"""`/v1/usage`: what was used and what it cost, for a tenant's own `admin` key and for operators (one or all)."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.asks import query_of
from ops.console.state import console_of
from ops.usage.asks import UsageQuery

_NO_STORE = {"cache-control": "no-store"}


class UsageOverHttp(UsageQuery):
    top: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    """The dearest groups only; `groups` says how many there are."""


async def show_usage(request: Request) -> Response:
    console, query = console_of(request), query_of(request, UsageOverHttp)
    visitor = await console.authenticate(request, tenant=query.tenant)
    asked = query.question(datetime.now(UTC))
    own = msgspec.structs.replace(asked, filter=msgspec.structs.replace(asked.filter, tenant=visitor.tenant))
    return json_response((await console.usage(visitor).report(own)).resource(), headers=_NO_STORE)
