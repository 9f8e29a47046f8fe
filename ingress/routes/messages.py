"""`POST /v1/agents/{agent_id}/messages`: a message becomes a job, in one Redis round trip.

202 means the job is in Redis and will end in one of its states, whatever happens to us. A repeat (same
Idempotency-Key, or an SDK's own retry) answers 200 with the job of the first try, and is no further message to any
limit. Every answer that comes after admission says how the sender's rate windows stand.
"""

import time
from collections.abc import Awaitable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from agents.api import Agent
from ingress import metrics
from ingress.auth import Caller
from ingress.body import parse_message
from ingress.limits import limits_of, rate_headers, spent, too_many
from ingress.message import ChatMessage
from ingress.repeats import idempotency_of
from ingress.requests import read_body
from ingress.responses import job_path, job_response
from ingress.state import Ingress, ingress_of
from shared.budgets import Scope
from shared.errors import BudgetExhausted, Busy, CallerError, Conflict, NotFound, QueueFull, RateLimited, Unavailable
from shared.ids import uuid7
from shared.jobs import JobRecord, JobState
from shared.rates import Limits, Standing
from shared.scripts import Admission, Idempotency
from shared.telemetry import context
from shared.telemetry.tracing import Trace, trace_id
from shared.tenants import Arrival
from shared.wire import Policy, TurnPayload

FULL_RETRY_AFTER_S = 5


async def post_message(request: Request) -> Response:
    ingress = ingress_of(request)
    caller = await ingress.authenticate(request)
    agent = ingress.agents.get(request.path_params["agent_id"])
    if agent is None:
        raise NotFound("There is no such agent; `GET /v1/agents` lists them.")
    body = parse_message(await read_body(request, ingress.settings.max_body_bytes), ingress.settings)
    repeat = idempotency_of(request, agent_id=agent.id, body=body, caller=caller.key_sha256)
    payload = _payload(request, caller, agent, body)
    how = _admitting(ingress, caller, agent, body, repeat)
    limits = _limits(ingress, caller, payload)
    admission = await _admit(ingress, payload, how, limits)
    _note(payload, admission)
    request.scope["answer_headers"] = headers = rate_headers(admission.windows)
    return await _answer(ingress, payload, admission, headers)


def _note(payload: TurnPayload, admission: Admission) -> None:
    """For the request's line and the numbers."""
    outcome = _outcome(admission)
    metrics.count_admission(payload.agent, outcome)
    context.bind(
        agent=payload.agent,
        job_id=admission.job_id,
        conversation_id=None if admission.outcome == "replayed" else payload.conversation_id,  # perhaps just made up
        trace_id=trace_id(payload.trace),
        outcome=outcome,
    )


def _outcome(admission: Admission) -> str:
    """With what has refused it, by name: `limited_user`, `spent_tenant-month`."""
    match admission.refused_by:
        case Standing(window):
            return f"limited_{window.level}"
        case Scope(kind):
            return f"spent_{kind}"
    return admission.outcome


def _payload(request: Request, caller: Caller, agent: Agent, body: ChatMessage) -> TurnPayload:
    trace: Trace = request.scope["span"].onward()
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
        trace=trace.headers(),
        request_id=request.scope["request_id"],
    )


class _Admitting(NamedTuple):
    ttl_s: int
    idempotency: Idempotency
    policy: Policy
    merge_window_s: float


def _admitting(ingress: Ingress, caller: Caller, agent: Agent, body: ChatMessage, repeat: Idempotency) -> _Admitting:
    """What the message says comes first, then the tenant's settings, then the agent."""
    wanted = caller.terms.policies.get(agent.id, Arrival())
    window_s = agent.merge_window_s if wanted.merge_window_s is None else wanted.merge_window_s
    return _Admitting(
        body.ttl_s or ingress.settings.ttl_s, repeat, body.policy or wanted.policy or agent.policy, window_s
    )


def _limits(ingress: Ingress, caller: Caller, payload: TurnPayload) -> Limits:
    return limits_of(
        caller.terms,
        ingress.budgets,
        tenant=caller.tenant,
        user_id=payload.user_id,
        conversation_id=payload.conversation_id,
        at_ms=time.time_ns() // 1_000_000,
        global_per_min=ingress.settings.global_per_min,
    )


async def _admit(ingress: Ingress, payload: TurnPayload, how: _Admitting, limits: Limits) -> Admission:
    """One call; a second one, with the same job id, when the first may have been accepted unheard."""
    if ingress.pressure.full:
        metrics.count_admission(payload.agent, "closed")
    ingress.pressure.check()

    def admit() -> Awaitable[Admission]:
        enqueued_ms = time.time_ns() // 1_000_000
        return ingress.intake.admit(payload, enqueued_ms=enqueued_ms, limits=limits, **how._asdict())

    try:
        return await admit()
    except Unavailable:
        try:
            return await admit()
        except Unavailable:
            metrics.count_admission(payload.agent, "unavailable")
            raise


async def _answer(ingress: Ingress, payload: TurnPayload, admission: Admission, headers: Mapping[str, str]) -> Response:
    match admission.outcome:
        case "accepted":
            return _shown(ingress, _accepted_record(payload, admission), 202, headers)
        case "replayed":
            record = await ingress.find(payload.tenant, admission.job_id)
            if record is None:  # it ended unstarted, Redis forgot it, and its row is still on the way to Postgres
                raise Unavailable("the job of the first try cannot be read yet")
            return _shown(ingress, record, 200, {**headers, "idempotent-replayed": "true"})
        case "mismatch":
            raise Conflict("This Idempotency-Key was used with another body.", code="idempotency_mismatch", status=422)
        case "owner":
            raise Conflict("This conversation belongs to another user.", code="conversation_owner", status=422)
        case "busy":
            raise Busy("This conversation is being answered, and its policy is to reject messages meanwhile.")
        case "full":
            raise QueueFull("The queue is full; try again later.", retry_after_s=FULL_RETRY_AFTER_S)
        case "limited" | "spent":
            raise _by_limit(admission.refused_by)


def _by_limit(limit: Standing | Scope | None) -> CallerError:
    match limit:
        case Standing(window):
            return RateLimited(too_many(limit), level=window.level, retry_after_s=limit.left_s)
        case Scope(kind):
            return BudgetExhausted(spent(limit), scope=kind, resets_at_s=limit.ends_at_s)
        case None:
            raise ValueError("refused by a limit, but by none that was asked")


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


def _shown(ingress: Ingress, record: JobRecord, status: int, headers: Mapping[str, str]) -> Response:
    path = job_path(record.id)
    events_url = f"{path}/events?token={ingress.tokens.sign(record.tenant, record.id)}"
    return job_response(record, status, {"location": path, **headers}, events_url=events_url)
