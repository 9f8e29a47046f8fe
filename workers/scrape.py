"""Where this worker can be scraped, told to the deployment: its port is found at start, so no list can be written.

`sb:scrape` holds one entry per worker with a metrics port, renewed while it lives; the console shows them to Prometheus
(`GET /v1/metrics/targets`). An entry outlives its worker by at most `TTL_S`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from shared import keys
from shared.errors import Unavailable
from shared.redis import Commands

TTL_S = 30
RENEW_EVERY_S = 10.0


@asynccontextmanager
async def announced(commands: Commands, queue: str, address: str | None) -> AsyncIterator[None]:
    """While the block lasts; nothing without an address."""
    if address is None:
        yield
        return
    entry = f"{queue} {address}"
    renewing = asyncio.ensure_future(_renew(commands, entry))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
        with suppress(Unavailable):  # it expires by itself
            await commands.run("ZREM", keys.SCRAPE, entry)


async def _renew(commands: Commands, entry: str) -> None:
    while True:
        with suppress(Unavailable):
            seconds = int((await commands.run("TIME"))[0])
            await commands.run("ZADD", keys.SCRAPE, seconds + TTL_S, entry)
            await commands.run("ZREMRANGEBYSCORE", keys.SCRAPE, "-inf", seconds)
        await asyncio.sleep(RENEW_EVERY_S)
