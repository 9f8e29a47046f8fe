"""From a question in OpenAI's form to its job, and from the job to an answer: what all routes have in common."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from starlette.requests import Request

from agents.api import Agent
from ingress.admission import admit, admitting, not_readable_yet, traced
from ingress.auth import Caller
from ingress.openai.failures import still_running
from ingress.openai.naming import job_id_of, unknown_response
from ingress.openai.parsing import Question
from ingress.repeats import idempotency_of
from ingress.sse import EventStream, Frames, JobEvents
from ingress.state import Ingress
from ingress.waiting import ended_within
from shared.errors import NotFound
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.scripts import Idempotency, read_events
from shared.telemetry import context
from shared.wire import EventType, Policy, TurnPayload

STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Taken(NamedTuple):
    """A question's job, new or of a first try, and headers of its answer."""

    record: JobRecord
    headers: dict[str, str]


def agent_of(ingress: Ingress, model: str) -> Agent:
    agent = ingress.agents.get(model)
    if agent is None:
        raise NotFound(
            f"The model '{model}' does not exist; `GET /v1/models` lists the agents.",
            code="model_not_found",
            param="model",
        )
    return agent


async def find(ingress: Ingress, tenant: str, job_id: str) -> JobRecord | None:
    """A tenant's job with what was asked, from Redis while it is there, else from Postgres; forgotten ones too."""
    record = await ingress.intake.read(job_id)
    if record is None:
        return await ingress.archive.response(tenant, job_id)
    return record if record.tenant == tenant else None


async def visible(ingress: Ingress, tenant: str, response_id: str) -> JobRecord:
    """The job that a response's id names. Raises NotFound alike for unknown, foreign, deleted and malformed ones."""
    job_id = job_id_of(response_id)
    record = await find(ingress, tenant, job_id) if job_id else None
    if record is None or record.forgotten:
        raise unknown_response(response_id)
    context.bind(job_id=record.id, agent=record.agent, conversation_id=context.conversation(record.conversation_id))
    return record


def repeat_of(request: Request, caller: Caller, question: Question) -> Idempotency:
    """How the question is known again. Raises InvalidRequest for an unusable key."""
    route = f"{request.method} {request.scope['route'].path}"
    who = caller.key_sha256
    return idempotency_of(request, agent_id=question.model, body=lambda: question.canonical, caller=who, route=route)


async def take(
    request: Request,
    ingress: Ingress,
    caller: Caller,
    question: Question,
    *,
    conversation_id: str,
    policy: Policy | None = None,
) -> Taken:
    """Admits the question, in one round trip unless it is a repeat."""
    agent = agent_of(ingress, question.model)
    payload = TurnPayload(
        job_id=uuid7(),
        tenant=caller.tenant,
        agent=agent.id,
        conversation_id=conversation_id,
        message=question.message,
        user_id=question.user_id,
        queue=agent.queue,
        metadata=question.metadata,
        asked=question.asked,
        trace=traced(request),
        request_id=request.scope["request_id"],
    )
    how = admitting(ingress, caller, agent, repeat_of(request, caller, question), policy=policy)
    admitted = await admit(ingress, request, caller, payload, how)
    headers = {"cache-control": "no-store", **admitted.headers}
    if admitted.record is not None:
        return Taken(admitted.record, headers)
    record = await find(ingress, caller.tenant, admitted.job_id)
    if record is None:
        raise not_readable_yet()
    return Taken(record, {**headers, "idempotent-replayed": "true"})


async def answered(request: Request, ingress: Ingress, record: JobRecord) -> JobRecord:
    """The job once it is over. Raises Unanswered when that takes too long, ClientDisconnect when the caller has
    gone; the job goes on all the same."""
    wait_s = ingress.settings.openai_wait_max_s
    reread = partial(find, ingress, record.tenant, record.id)
    record = await ended_within(ingress.notices, request, record, reread, wait_s)
    if not record.over:
        raise still_running(record, wait_s)
    return record


async def stream(
    ingress: Ingress, record: JobRecord, frames: Callable[[int], Frames], headers: dict[str, str]
) -> EventStream:
    """The job's events from the first one on. `frames` is given the number of the last one that made text void."""
    made = frames(await _void_until(ingress, record))
    events = JobEvents(ingress.commands, record, partial(find, ingress, record.tenant, record.id), frames=made)
    body = events.stream(ingress.notices, ingress.settings.sse_keepalive_s)
    return EventStream(body, headers={**STREAM_HEADERS, **headers})


async def _void_until(ingress: Ingress, record: JobRecord) -> int:
    """0 of a job that was not started, which asks nobody. Not every attempt is counted: one handed back is not."""
    if record.started_us is None:
        return 0
    _, events = await read_events(ingress.commands, record.id)
    return max((event.seq for event in events if event.type == EventType.RESET), default=0)
