"""What the console does by itself, because it has the role that may and is always on.

The ledger's next months get their partitions in time; what is too old goes; erasures that nobody works on any more are
finished. Several consoles do no harm: the database lets one at a time do each thing, and what is done is left alone.
`switchboard migrate` makes partitions as well, at each release; `switchboard doctor` warns when neither happened.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from ingress.tasks import stop
from ops.users.erasing import Eraser
from ops.users.retention import Retention
from shared.config import Settings
from shared.db import Pool
from shared.errors import Unavailable
from sql import queries

log = structlog.get_logger(__name__)

MONTHS = 3
EVERY_S = 6 * 3600
AGAIN_S = 300
"""After a failure: the server is away, or a long reader of the ledger kept us waiting."""
LOOK_S = 5.0
"""How often erasures that nobody works on are looked for."""
ERASURES = 4


@asynccontextmanager
async def kept_up(settings: Settings, pool: Pool, eraser: Eraser) -> AsyncIterator[None]:
    """For as long as the block lasts. A fault of ours ends one of them, said loudly: the console itself goes on."""
    retention = Retention(pool, settings)
    tasks = [
        _started("ledger_months", keep_ledger_months(pool)),
        _started("erasures", keep_erasing(eraser)),
        _started("retention", keep_retention(retention)),
    ]
    try:
        yield
    finally:
        await stop(*tasks)


def _started(what: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.create_task(work)

    def report_fault(done: "asyncio.Task[None]") -> None:
        if not done.cancelled() and (error := done.exception()):
            log.error(f"{what}_given_up", exc_info=error)

    task.add_done_callback(report_fault)
    return task


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


async def keep_erasing(eraser: Eraser, *, every_s: float = LOOK_S) -> None:
    """Until it is cancelled."""
    while True:
        try:
            await eraser.resume(ERASURES)
        except Unavailable as error:
            log.warning("erasures_wait", error=str(error))
        await asyncio.sleep(every_s)


async def keep_retention(retention: Retention, *, every_s: float = AGAIN_S) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await retention.run_if_due()
        except Unavailable as error:
            log.warning("retention_waits", error=str(error))
