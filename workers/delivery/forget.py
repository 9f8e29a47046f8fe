"""Retention: deliveries that ended long ago go, with their log, a batch at a time. Every delivery process does it."""

import asyncio

import structlog

from shared.db import Pool
from shared.errors import Unavailable
from sql import queries

log = structlog.get_logger("delivery")

BATCH = 1_000
"""Rows of one statement: it is over in milliseconds, and holds up nobody."""
BETWEEN_S = 0.1
EVERY_S = 600
"""After a look that found fewer than a batch."""


async def keep_forgetting(pool: Pool, days: int, *, every_s: float = EVERY_S) -> None:
    """Until it is cancelled. Postgres being away costs a round, nothing else."""
    while True:
        gone = 0
        try:
            gone = await forgotten(pool, days)
        except Unavailable as error:
            log.warning("delivery.outage", fault=str(error))
        except Exception:  # a fault of ours must not end it for good
            log.exception("delivery.not_forgotten")
        if gone:
            log.info("delivery.forgotten", deliveries=gone, days=days)
        await asyncio.sleep(every_s)


async def forgotten(pool: Pool, days: int, *, batch: int = BATCH) -> int:
    """All there are now; how many. A crash leaves the rest for the next time."""
    gone, last = 0, batch
    while last == batch:
        last = int(await pool.fetchval(queries["forget_deliveries"], days, batch))
        gone += last
        if last == batch:
            await asyncio.sleep(BETWEEN_S)
    return gone
