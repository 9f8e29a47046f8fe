"""Admission, the same for every route that takes messages: one round trip, and what it decided as a value or an error.

What a message says comes first, then the tenant's settings, then the agent's own. A refusal raises the error that its
caller gets; the route decides how an accepted job, or that of a first try, is shown.
"""

import time
from collections.abc import Awaitable, Mapping
from typing import Literal, NamedTuple

import msgspec
from starlette.requests import Request

from agents.api import Agent
from ingress import metrics
from ingress.auth import Caller
from ingress.limits import limits_of, rate_headers, spent, too_many
from ingress.state import Ingress
from shared.budgets import Scope
from shared.errors import BudgetExhausted, Busy, CallerError, Conflict, QueueFull, RateLimited, Unavailable
from shared.jobs import JobRecord, JobState
from shared.rates import Limits, Standing
from shared.redis.link import Reply
from shared.scripts import Admission, Idempotency
from shared.telemetry import context
from shared.telemetry.tracing import Trace, trace_id
from shared.tenants import Arrival
from shared.wire import Policy, TurnPayload

FULL_RETRY_AFTER_S = 5
_AS_THE_AGENT = Arrival()


class Admitting(NamedTuple):
    ttl_s: int
    idempotency: Idempotency
    policy: Policy
    merge_window_s: float


class Admitted(NamedTuple):
    """`accepted`: a new job, whose record this is. `replayed`: `job_id` was accepted before."""

    outcome: Literal["accepted", "replayed"]
    job_id: str
    record: JobRecord | None
    """What Redis holds now, without asking it; None for a job that is not new."""
    headers: Mapping[str, str]
    """How the sender's rate windows stand, for the answer."""


class Begun(msgspec.Struct):
    """A message whose admission is under way before the application hears of it (`ingress.plain`). What was not simply
    accepted goes on there, with the same ids, as the scope's `begun`."""

    request_id: str
    started_ns: int
    trace: Trace
    payload: TurnPayload
    limits: Limits
    asked: Reply
    admission: Admission | None = None
    """What Redis decided; None: nobody knows yet."""


def admitting(
    ingress: Ingress,
    caller: Caller,
    agent: Agent,
    repeat: Idempotency,
    *,
    ttl_s: int | None = None,
    policy: Policy | None = None,
) -> Admitting:
    """`ttl_s` and `policy` are the message's own, if it has some."""
    wanted = caller.terms.policies.get(agent.id, _AS_THE_AGENT)
    window_s = agent.merge_window_s if wanted.merge_window_s is None else wanted.merge_window_s
    return Admitting(ttl_s or ingress.settings.ttl_s, repeat, policy or wanted.policy or agent.policy, window_s)


def traced(request: Request) -> dict[str, str]:
    """Headers that carry the request's trace with the job."""
    trace: Trace = request.scope["span"].onward()
    return trace.headers()


async def admit(ingress: Ingress, request: Request, caller: Caller, payload: TurnPayload, how: Admitting) -> Admitted:
    """The job is accepted, now or before. Raises what else may become of a message.

    From here on every answer to the request, refusals too, says how the sender's rate windows stand.
    """
    begun: Begun | None = request.scope.get("begun")
    admission = None if begun is None else begun.admission
    if admission is None:
        admission = await _admit(ingress, payload, how, message_limits(ingress, caller, payload))
    metrics.count_admission(payload.agent, outcome_of(admission))
    context.bind(**told(payload, admission))
    request.scope["answer_headers"] = headers = rate_headers(admission.windows)
    match admission.outcome:
        case "accepted":
            return Admitted("accepted", admission.job_id, accepted_record(payload, admission), headers)
        case "replayed":
            return Admitted("replayed", admission.job_id, None, headers)
        case "mismatch":
            raise Conflict("This Idempotency-Key was used with another body.", code="idempotency_mismatch", status=422)
        case "owner":
            raise Conflict("This conversation belongs to another user.", code="conversation_owner", status=422)
        case "busy":
            raise Busy("This conversation is being answered, and its policy is to reject messages meanwhile.")
        case "full":
            raise QueueFull("The queue is full; try again later.", retry_after_s=FULL_RETRY_AFTER_S)
        case "limited" | "spent":
            raise refusal_by(admission.refused_by)


def refusal_by(limit: Standing | Scope | None) -> CallerError:
    """What the sender of a message gets that a limit has refused."""
    match limit:
        case Standing(window):
            return RateLimited(too_many(limit), level=window.level, retry_after_s=limit.left_s)
        case Scope(kind):
            return BudgetExhausted(spent(limit), scope=kind, resets_at_s=limit.ends_at_s)
        case None:
            raise ValueError("refused by a limit, but by none that was asked")


def not_readable_yet() -> Unavailable:
    """The job of a first try ended unstarted, Redis forgot it, and its row is still on the way to Postgres."""
    return Unavailable("the job of the first try cannot be read yet")


def message_limits(ingress: Ingress, caller: Caller, payload: TurnPayload) -> Limits:
    return limits_of(
        caller.terms,
        ingress.budgets,
        tenant=caller.tenant,
        user_id=payload.user_id,
        conversation_id=payload.conversation_id,
        at_ms=time.time_ns() // 1_000_000,
        global_per_min=ingress.settings.global_per_min,
    )


async def _admit(ingress: Ingress, payload: TurnPayload, how: Admitting, limits: Limits) -> Admission:
    """One call; a second one, with the same job id, when the first may have been accepted unheard."""
    if ingress.pressure.full:
        metrics.count_admission(payload.agent, "closed")
    ingress.pressure.check()

    try:
        return await _ask(ingress, payload, how, limits)
    except Unavailable:
        try:
            return await _ask(ingress, payload, how, limits)
        except Unavailable:
            metrics.count_admission(payload.agent, "unavailable")
            raise


def _ask(ingress: Ingress, payload: TurnPayload, how: Admitting, limits: Limits) -> Awaitable[Admission]:
    return ingress.intake.admit(
        payload,
        ttl_s=how.ttl_s,
        enqueued_ms=time.time_ns() // 1_000_000,
        idempotency=how.idempotency,
        policy=how.policy,
        merge_window_s=how.merge_window_s,
        limits=limits,
    )


def told(payload: TurnPayload, admission: Admission) -> dict[str, str | None]:
    """For the request's line."""
    outcome = outcome_of(admission)
    return {
        "agent": payload.agent,
        "job_id": admission.job_id,
        # perhaps just made up
        "conversation_id": None if outcome == "replayed" else context.conversation(payload.conversation_id),
        "trace_id": trace_id(payload.trace),
        "outcome": outcome,
    }


def outcome_of(admission: Admission) -> str:
    """With what has refused it, by name: `limited_user`, `spent_tenant-month`."""
    match admission.refused_by:
        case Standing(window):
            return f"limited_{window.level}"
        case Scope(kind):
            return f"spent_{kind}"
    return admission.outcome


def accepted_record(payload: TurnPayload, admission: Admission) -> JobRecord:
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
        asked=payload.asked and payload.asked.shown(),
    )
