"""`/v1/dead-jobs`: list, inspect, retry (one, changed or not, or a batch), discard.

An id that never was, is malformed, or belongs to another tenant is the same 404.
"""

from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.asks import BulkBody, RetryBody, after_cursor, asked_tenant, body_of, cursor_of, list_query
from ops.console.state import Console, Visitor, console_of, job_id_of
from ops.dead.books import DeadFilter, no_such_dead_job, place_of
from ops.dead.desk import Desk
from ops.dead.retry import Refusal, Retried
from shared.errors import QueueFull, Unavailable

log = structlog.get_logger(__name__)
_NO_STORE = {"cache-control": "no-store"}


class _Place(msgspec.Struct, frozen=True):
    """Where a page ended: `place_of`."""

    finished_us: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    job_id: UUID
    run: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]


async def list_dead_jobs(request: Request) -> Response:
    console, asked = console_of(request), list_query(request)
    visitor = await console.authenticate(request, tenant=asked.tenant)
    wanted = asked.to_filter(visitor.tenant, asked.disposition)
    after = after_cursor(asked.cursor, _Place)
    place = None if after is None else msgspec.to_builtins(after)
    found = await console.desk(visitor).books.page(wanted, place, asked.limit + 1)
    page = found[: asked.limit]
    more = cursor_of(place_of(page[-1])) if len(found) > asked.limit else None
    return _shown({"object": "list", "data": [dead.resource() for dead in page], "next_cursor": more})


class DeadJobResource(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        _, visitor, desk, job_id = await _of_job(request)
        return _shown((await desk.books.find(visitor.tenant, job_id)).resource())

    async def delete(self, request: Request) -> Response:
        _, visitor, desk, job_id = await _of_job(request)
        await desk.books.discard(visitor.tenant, job_id, visitor.by)
        log.info("dead_job_discarded", by=visitor.by)
        return _shown((await desk.books.find(visitor.tenant, job_id)).resource())


async def retry_dead_job(request: Request) -> Response:
    console, visitor, desk, job_id = await _of_job(request)
    body = await body_of(request, RetryBody, console.settings.max_body_bytes)
    retried = await desk.retrier.retry(
        visitor.tenant, job_id, position=body.position, by=visitor.by, edit=body.edit.to_edit()
    )
    log.info("dead_job_retried", by=visitor.by, run=retried.run, repeated=retried.repeated)
    return _shown(_outcome(retried), 200 if retried.repeated else 202)


class DeadJobsRetry(HTTPEndpoint):
    """A class, to own its path: as a function for POST it would leave other methods to `/v1/dead-jobs/{job_id}`."""

    async def post(self, request: Request) -> Response:
        """A batch of what the filter matches; `next_cursor` is null when nothing is left."""
        console = console_of(request)
        body = await body_of(request, BulkBody, console.settings.max_body_bytes)
        visitor = await console.authenticate(request, tenant=body.filter.tenant)
        after = after_cursor(body.cursor, UUID)
        wanted, start = body.filter.to_filter(visitor.tenant, "open"), None if after is None else str(after)
        done, cut_short = await _batch(console.desk(visitor), wanted, start, body, visitor)
        more = cursor_of(done[-1].job_id) if done and (cut_short or len(done) == body.limit) else None
        log.info("dead_jobs_retried", by=visitor.by, handled=len(done))
        return _shown({"object": "list", "data": [_outcome(one) for one in done], "next_cursor": more}, 202)


async def _batch(
    desk: Desk, wanted: DeadFilter, after: str | None, body: BulkBody, visitor: Visitor
) -> tuple[list[Retried | Refusal], bool]:
    """What was handled, and whether something stopped it early; when that was at the first one, it is raised."""
    done: list[Retried | Refusal] = []
    try:
        async for one in desk.retrier.retry_next(wanted, after, body.limit, position=body.position, by=visitor.by):
            done.append(one)
    except (QueueFull, Unavailable):
        if not done:
            raise
        return done, True
    return done, False


async def _of_job(request: Request) -> tuple[Console, Visitor, Desk, str]:
    """`?tenant=` narrows an operator's request to one tenant."""
    console = console_of(request)
    visitor = await console.authenticate(request, tenant=asked_tenant(request))
    job_id = job_id_of(request)
    if job_id is None:
        raise no_such_dead_job()
    return console, visitor, console.desk(visitor), job_id


def _outcome(one: Retried | Refusal) -> dict[str, Any]:
    head = {"id": one.job_id, "object": "dead_job.retry", "tenant": one.tenant}
    if isinstance(one, Refusal):
        return {**head, "outcome": "refused", "error": {"code": one.error.code, "message": str(one.error)}}
    outcome = "repeated" if one.repeated else "queued"
    return {**head, "outcome": outcome, "run": one.run, "position": one.place, "job": f"/v1/jobs/{one.job_id}"}


def _shown(body: Any, status: int = 200) -> Response:
    return json_response(body, status, _NO_STORE)
