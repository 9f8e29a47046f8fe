"""`/health/ready` of the console: Redis and Postgres answer it. No key, nothing secret."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from ingress.probes import probed, report
from ops.console.state import console_of

AWAY = "cannot be reached"


async def ready(request: Request) -> Response:
    console = console_of(request)
    redis, postgres = await asyncio.gather(
        probed(console.commands.run("PING"), AWAY), probed(console.keys.ping(), AWAY)
    )
    return report({"redis": redis, "postgres": postgres})
