"""Waiting for the end of a job, for the routes that answer with it."""

import asyncio
import time

from starlette.requests import ClientDisconnect, Request

from ingress.notices import Notices
from ingress.problems import unknown_job
from ingress.requests import gone
from ingress.sse import Find
from ingress.tasks import stop
from shared.jobs import JobRecord


async def ended_within(notices: Notices, request: Request, record: JobRecord, find: Find, wait_s: float) -> JobRecord:
    """The job once it has ended, or as it is when the time is over. Raises ClientDisconnect when the caller leaves."""
    if record.over:
        return record
    waiting = asyncio.ensure_future(_watched(notices, record.id, find, time.monotonic() + wait_s))
    leaving = asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return await waiting
    finally:
        await stop(waiting, leaving)


async def _watched(notices: Notices, job_id: str, find: Find, deadline_s: float) -> JobRecord:
    """Subscribes first, then reads: an end in between is seen by one or the other."""
    async with notices.watch(job_id, ends_only=True) as watch:
        while True:
            found = await find()
            if found is None:
                raise unknown_job()
            if found.over or not await watch.wait(deadline_s - time.monotonic()):
                return found
