"""`/health/live`: the process serves. `/health/ready`: Redis and Postgres answer it. No key, nothing secret."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.state import console_of
from shared.errors import SwitchboardError

PROBE_TIMEOUT_S = 3.0


async def live(_request: Request) -> Response:
    return json_response({"status": "ok"})


async def ready(request: Request) -> Response:
    console = console_of(request)
    redis, postgres = await asyncio.gather(_probed(console.commands.run("PING")), _probed(console.keys.ping()))
    well = redis == postgres == "ok"
    body = {"status": "ok" if well else "unavailable", "parts": {"redis": redis, "postgres": postgres}}
    return json_response(body, 200 if well else 503, {"cache-control": "no-store"})


async def _probed(probe: Awaitable[Any]) -> str:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe
    except (SwitchboardError, TimeoutError):
        return "cannot be reached"
    return "ok"
