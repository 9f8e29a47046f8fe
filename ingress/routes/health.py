"""`/health/*`: what is well, for platforms and for `switchboard dev`. No key, nothing secret.

`live`: the process serves. `ready`: it can do its own work. `stack`: everything a message needs to be answered.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from ingress.probes import Parts, probed, report
from ingress.state import Ingress, ingress_of
from shared import keys
from shared.errors import Unavailable

PROBE_TTL_S = 10


async def ready(request: Request) -> Response:
    return report(await _own_parts(ingress_of(request)))


async def stack(request: Request) -> Response:
    ingress = ingress_of(request)
    queues = sorted({agent.queue for agent in ingress.agents.values()})
    own = await _own_parts(ingress)
    postgres, *workers = await asyncio.gather(
        probed(ingress.archive.ping(), "cannot be reached, or lacks migrations"),
        *(probed(_worker_lives(ingress, queue), "no live worker") for queue in queues),
    )
    named = {f"workers:{queue}": said for queue, said in zip(queues, workers, strict=True)}
    return report({**own, "postgres": postgres, **named})


async def _own_parts(ingress: Ingress) -> Parts:
    unusable = {} if ingress.archive.usable else {"deployment": "Postgres cannot be used: the log says why"}
    return unusable | {
        "redis": await probed(_redis_takes_writes(ingress), "cannot be reached, or takes no writes"),
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
