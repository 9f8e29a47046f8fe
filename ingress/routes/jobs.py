"""`/v1/jobs/{job_id}`: look at a job, wait for its end, follow its events, cancel it.

Reading takes an API key or the read token of the job's `events_url`. With a token any web page may read the answer
(CORS): the token is the permission, and no browser adds one by itself.
"""

import asyncio
import time
from collections.abc import Mapping

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.auth import Caller
from ingress.problems import unknown_job
from ingress.requests import gone, preferred_wait_s
from ingress.responses import job_path, job_response
from ingress.sse import EventStream, JobEvents, last_seen
from ingress.state import Ingress, ingress_of
from ingress.tasks import stop
from shared.errors import Conflict
from shared.ids import is_uuid
from shared.jobs import JobRecord, JobState

_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Job(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        ingress = ingress_of(request)
        caller = await ingress.authenticate_reader(request)
        record = await ingress.job_of(request, caller.tenant)
        headers = {**_cors(caller)}
        if wait_s := min(preferred_wait_s(request), ingress.settings.long_poll_max_s):
            headers["preference-applied"] = f"wait={wait_s}"
            record = await _ended_within(ingress, request, record, wait_s)
        return job_response(record, headers=headers)

    async def delete(self, request: Request) -> Response:
        ingress = ingress_of(request)
        caller = await ingress.authenticate(request)
        job_id = request.path_params["job_id"]
        outcome = await ingress.intake.cancel(caller.tenant, job_id) if is_uuid(job_id) else "unknown"
        record = await ingress.job_of(request, caller.tenant)
        if outcome == "requested":
            return job_response(record, 202, {"location": job_path(job_id)})
        if record.state is JobState.CANCELLED:
            return job_response(record)
        raise Conflict(f"The job has already ended: {record.state}.", code="job_ended")


async def job_events(request: Request) -> Response:
    ingress = ingress_of(request)
    caller = await ingress.authenticate_reader(request)
    record = await ingress.job_of(request, caller.tenant)
    event_id = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    events = JobEvents(
        ingress.commands, record, lambda: ingress.find(caller.tenant, record.id), after=last_seen(event_id)
    )
    headers = {**_STREAM_HEADERS, **_cors(caller)}
    if request.method == "HEAD" or await events.all_seen():
        status = 200 if request.method == "HEAD" else 204  # 204 tells an EventSource to stop reconnecting
        return Response(status_code=status, headers=headers, media_type=EventStream.media_type)
    return EventStream(events.stream(ingress.notices, ingress.settings.sse_keepalive_s), headers=headers)


async def _ended_within(ingress: Ingress, request: Request, record: JobRecord, wait_s: int) -> JobRecord:
    """The job once it has ended, or as it is when the time is over or the caller has gone."""
    if record.over:
        return record
    waiting = asyncio.ensure_future(_watched(ingress, record, time.monotonic() + wait_s))
    leaving = asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else record
    finally:
        await stop(waiting, leaving)


async def _watched(ingress: Ingress, record: JobRecord, deadline_s: float) -> JobRecord:
    """Subscribes first, then reads: an end in between is seen by one or the other."""
    async with ingress.notices.watch(record.id, ends_only=True) as watch:
        while True:
            found = await ingress.find(record.tenant, record.id)
            if found is None:
                raise unknown_job()
            if found.over or not await watch.wait(deadline_s - time.monotonic()):
                return found


def _cors(caller: Caller) -> Mapping[str, str]:
    return {} if caller.key_sha256 else {"access-control-allow-origin": "*"}
