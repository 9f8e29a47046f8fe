"""What the health routes of both applications are made of: parts that are asked, and an answer naming the unwell."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from shared.errors import SwitchboardError
from shared.telemetry import context

PROBE_TIMEOUT_S = 3.0

Parts = dict[str, str]
"""What each part says of itself: `ok`, or what is missing."""


async def live(_request: Request) -> Response:
    return json_response({"status": "ok"})


async def probed(probe: Awaitable[Any], otherwise: str) -> str:
    """What a part says of itself; `otherwise` when it raises or does not answer in time."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe
    except (SwitchboardError, TimeoutError):
        return otherwise
    return "ok"


def report(parts: Parts) -> Response:
    """200 when every part is well, else 503; the request's line says which are not."""
    unwell = {part: said for part, said in parts.items() if said != "ok"}
    if unwell:
        context.bind(unwell=unwell)
    body = {"status": "unavailable" if unwell else "ok", "parts": parts}
    headers = {"cache-control": "no-store", **({"retry-after": "1"} if unwell else {})}
    return json_response(body, 503 if unwell else 200, headers)
