"""Judges the rules every minute, in one delivery process of the deployment: whichever asks first in that minute."""

import asyncio
import time

import structlog

from shared.db import Pool
from shared.errors import Unavailable
from sql import queries
from workers.alerts.judge import Judge, at

log = structlog.get_logger("alerts")

MINUTE_S = 60


async def watch(pool: Pool, judge: Judge) -> None:
    """Until it is cancelled. A judging that fails is made up for by the next one: nothing depends on the minute."""
    while True:
        try:
            now_us = await pool.fetchval(queries["claim_alert_minute"])
            if now_us is not None:
                started_s = time.monotonic()
                told = await judge.judge(at(now_us))
                log.info("alerts.judged", told=told, took_ms=round((time.monotonic() - started_s) * 1_000, 1))
        except Unavailable as error:
            log.warning("alerts.outage", fault=str(error))
        except Exception:  # a fault of ours must not end the alerts for good
            log.exception("alerts.broke")
        await asyncio.sleep(MINUTE_S - time.time() % MINUTE_S)
