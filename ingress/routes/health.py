"""`/health/*`: what is well, for platforms and for `switchboard dev`. No key, nothing secret.

`live`: the process serves. `ready`: it can do its own work. `stack`: everything a message needs to be answered.
"""

import asyncio
from collections.abc import Awaitable

from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ingress.state import Ingress, ingress_of
from shared import keys
from shared.errors import SwitchboardError, Unavailable

PROBE_TIMEOUT_S = 3.0
PROBE_TTL_S = 10

Parts = dict[str, str]
"""What each part says of itself: `ok`, or what is missing."""


async def live(_request: Request) -> Response:
    return json_response({"status": "ok"})


async def ready(request: Request) -> Response:
    return _report(await _own_parts(ingress_of(request)))


async def stack(request: Request) -> Response:
    ingress = ingress_of(request)
    queues = sorted({agent.queue for agent in ingress.agents.values()})
    own = await _own_parts(ingress)
    postgres, *workers = await asyncio.gather(
        _probed(ingress.archive.ping(), "cannot be reached, or lacks migrations"),
        *(_probed(_worker_lives(ingress, queue), "no live worker") for queue in queues),
    )
    named = {f"workers:{queue}": said for queue, said in zip(queues, workers, strict=True)}
    return _report({**own, "postgres": postgres, **named})


async def _own_parts(ingress: Ingress) -> Parts:
    unusable = {} if ingress.archive.usable else {"deployment": "Postgres cannot be used: the log says why"}
    return unusable | {
        "redis": await _probed(_redis_takes_writes(ingress), "cannot be reached, or takes no writes"),
        "agents": "ok" if ingress.agents else "none registered",
    }


async def _redis_takes_writes(ingress: Ingress) -> None:
    await ingress.commands.run("SET", keys.PROBE, "1", "EX", PROBE_TTL_S)


async def _worker_lives(ingress: Ingress, queue: str) -> None:
    """By the server's clock, as the leases are."""
    seconds, micros = await ingress.commands.run("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    if not await ingress.commands.run("ZCOUNT", keys.leases(queue), f"({now_ms}", "+inf"):
        raise Unavailable("no lease")


async def _probed(probe: Awaitable[None], otherwise: str) -> str:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe
    except (SwitchboardError, TimeoutError):
        return otherwise
    return "ok"


def _report(parts: Parts) -> Response:
    well = all(said == "ok" for said in parts.values())
    body = {"status": "ok" if well else "unavailable", "parts": parts}
    headers = {"cache-control": "no-store", **({} if well else {"retry-after": "1"})}
    return json_response(body, 200 if well else 503, headers)
