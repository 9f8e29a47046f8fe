"""`/v1/jobs/{job_id}`: look at a job, wait for its end, follow its events, cancel it.

Reading takes an API key or the read token of the job's `events_url`. With a token any web page may read the answer
(CORS): the token is the permission, and no browser adds one by itself.
"""

from collections.abc import Mapping
from functools import partial

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.auth import Caller
from ingress.requests import preferred_wait_s
from ingress.responses import job_path, job_response
from ingress.sse import EventStream, JobEvents, last_seen
from ingress.state import ingress_of
from ingress.waiting import ended_within
from shared.errors import Conflict
from shared.ids import is_uuid
from shared.jobs import JobState

_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Job(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        ingress = ingress_of(request)
        caller = await ingress.authenticate_reader(request)
        record = await ingress.job_of(request, caller.tenant)
        headers = {**_cors(caller)}
        if wait_s := min(preferred_wait_s(request), ingress.settings.long_poll_max_s):
            headers["preference-applied"] = f"wait={wait_s}"
            find = partial(ingress.find, caller.tenant, record.id)
            record = await ended_within(ingress.notices, request, record, find, wait_s)
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
    find = partial(ingress.find, caller.tenant, record.id)
    events = JobEvents(ingress.commands, record, find, after=last_seen(event_id))
    headers = {**_STREAM_HEADERS, **_cors(caller)}
    if request.method == "HEAD" or await events.all_seen():
        status = 200 if request.method == "HEAD" else 204  # 204 tells an EventSource to stop reconnecting
        return Response(status_code=status, headers=headers, media_type=EventStream.media_type)
    return EventStream(events.stream(ingress.notices, ingress.settings.sse_keepalive_s), headers=headers)


def _cors(caller: Caller) -> Mapping[str, str]:
    return {} if caller.key_sha256 else {"access-control-allow-origin": "*"}
