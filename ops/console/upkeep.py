"""The ledger's next months get their partitions in time: by the console, which has the role that may and is always on.

Several consoles do no harm: the database takes them one after the other, and what exists is left alone. `switchboard
migrate` does the same at each release, `switchboard doctor` warns when neither happened.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from ingress.tasks import stop
from shared.db import Pool
from shared.errors import Unavailable
from sql import queries

log = structlog.get_logger(__name__)

MONTHS = 3
EVERY_S = 6 * 3600
AGAIN_S = 300
"""After a failure: the server is away, or a long reader of the ledger kept us waiting."""


@asynccontextmanager
async def kept_up(pool: Pool) -> AsyncIterator[None]:
    """For as long as the block lasts. A fault of ours ends it, said loudly: the console itself goes on."""
    task = asyncio.create_task(keep_ledger_months(pool))
    task.add_done_callback(_report_fault)
    try:
        yield
    finally:
        await stop(task)


def _report_fault(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("ledger_months_given_up", exc_info=error)


async def keep_ledger_months(pool: Pool, *, every_s: float = EVERY_S, again_s: float = AGAIN_S) -> None:
    """Until it is cancelled."""
    while True:
        try:
            made = await pool.fetchval(queries["make_llm_calls_partitions"], MONTHS)
        except Unavailable as error:
            log.warning("ledger_months_failed", error=str(error), retry_in_s=again_s)
            await asyncio.sleep(again_s)
            continue
        if made:
            log.info("ledger_months_made", months=made)
        await asyncio.sleep(every_s)
