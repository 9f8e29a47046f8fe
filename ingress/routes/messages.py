"""`POST /v1/agents/{agent_id}/messages`: a message becomes a job, in one Redis round trip.

202 means the job is in Redis and will end in one of its states, whatever happens to us. A repeat (same
Idempotency-Key, or an SDK's own retry) answers 200 with the job of the first try.
"""

import time

import structlog
from starlette.requests import Request
from starlette.responses import Response

from agents.api import Agent
from ingress.auth import Caller
from ingress.body import MessageBody, parse_message
from ingress.repeats import idempotency_of
from ingress.requests import read_body
from ingress.responses import job_path, job_response
from ingress.state import Ingress, ingress_of
from shared.errors import Conflict, NotFound, QueueFull, Unavailable
from shared.ids import uuid7
from shared.jobs import JobRecord, JobState
from shared.scripts import Admission, Idempotency
from shared.wire import TurnPayload

FULL_RETRY_AFTER_S = 5


async def post_message(request: Request) -> Response:
    ingress = ingress_of(request)
    caller = await ingress.authenticate(request)
    agent = ingress.agents.get(request.path_params["agent_id"])
    if agent is None:
        raise NotFound("There is no such agent; `GET /v1/agents` lists them.")
    body = parse_message(await read_body(request, ingress.settings.max_body_bytes), ingress.settings)
    repeat = idempotency_of(request, agent_id=agent.id, body=body.canonical(), caller=caller.key_sha256)
    payload = _payload(request, caller, agent, body)
    admission = await _admit(ingress, payload, body.ttl_s or ingress.settings.ttl_s, repeat)
    structlog.contextvars.bind_contextvars(agent=agent.id, job_id=admission.job_id, outcome=admission.outcome)
    return await _answer(ingress, payload, admission)


def _payload(request: Request, caller: Caller, agent: Agent, body: MessageBody) -> TurnPayload:
    trace = {name: value for name in ("traceparent", "tracestate") if (value := request.headers.get(name))}
    return TurnPayload(
        job_id=uuid7(),
        tenant=caller.tenant,
        agent=agent.id,
        conversation_id=body.conversation_id or uuid7(),
        message=body.message,
        user_id=body.user_id,
        queue=agent.queue,
        metadata=body.metadata or {},
        callback_url=body.callback_url,
        domain=body.domain,
        feature=body.feature,
        trace=trace,
    )


async def _admit(ingress: Ingress, payload: TurnPayload, ttl_s: int, repeat: Idempotency) -> Admission:
    """One call; a second one, with the same job id, when the first may have been accepted unheard."""
    ingress.pressure.check()

    async def admit() -> Admission:
        enqueued_ms = time.time_ns() // 1_000_000
        return await ingress.intake.admit(payload, ttl_s=ttl_s, enqueued_ms=enqueued_ms, idempotency=repeat)

    try:
        return await admit()
    except Unavailable:
        return await admit()


async def _answer(ingress: Ingress, payload: TurnPayload, admission: Admission) -> Response:
    match admission.outcome:
        case "accepted":
            return _shown(ingress, _accepted_record(payload, admission), 202)
        case "replayed":
            record = await ingress.find(payload.tenant, admission.job_id)
            if record is None:  # it ended unstarted, Redis forgot it, and its row is still on the way to Postgres
                raise Unavailable("the job of the first try cannot be read yet")
            return _shown(ingress, record, 200, {"idempotent-replayed": "true"})
        case "mismatch":
            raise Conflict("This Idempotency-Key was used with another body.", code="idempotency_mismatch", status=422)
        case "owner":
            raise Conflict("This conversation belongs to another user.", code="conversation_owner", status=422)
        case "full":
            raise QueueFull("The queue is full; try again later.", retry_after_s=FULL_RETRY_AFTER_S)


def _accepted_record(payload: TurnPayload, admission: Admission) -> JobRecord:
    """What Redis holds now, without asking it."""
    return JobRecord(
        id=admission.job_id,
        tenant=payload.tenant,
        agent=payload.agent,
        conversation_id=payload.conversation_id,
        user_id=admission.user_id,
        state=JobState.QUEUED,
        created_us=admission.created_us,
        position=admission.position,
        metadata=payload.metadata,
    )


def _shown(ingress: Ingress, record: JobRecord, status: int, headers: dict[str, str] | None = None) -> Response:
    path = job_path(record.id)
    events_url = f"{path}/events?token={ingress.tokens.sign(record.tenant, record.id)}"
    return job_response(record, status, {"location": path, **(headers or {})}, events_url=events_url)
