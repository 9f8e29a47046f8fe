"""Everything of one request into Redis, before the provider hears 200.

The messages, and what is kept beside them, are one write on one connection, in the order the provider had them. What a
limit, a budget or a policy refuses is recorded as a `rejected` job with a second write, all of them together. Only what
the provider should send again raises: Redis cannot be reached, or has no room. What was queued before that is found by
its id when the whole comes again.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog

from ingress import metrics
from ingress.admission import FULL_RETRY_AFTER_S, outcome_of, refusal_by
from ingress.channels.directory import OpenChannel
from ingress.limits import limits_of
from ingress.state import Ingress
from shared import keys
from shared.channels.api import ADDRESS, Inbound, Kept, Reading
from shared.db import jsonb
from shared.errors import QueueFull, Unavailable
from shared.ids import uuid7
from shared.jobs import JobError
from shared.redis import Argument
from shared.scripts import Admission, Idempotency, Script, record_fields
from shared.tenants import Arrival
from shared.wire import Policy, TurnPayload, encode_turn

log = structlog.get_logger(__name__)
T = TypeVar("T")

REPEATED_FOR_S = 7 * 86_400
"""How long a provider's message id is known again: Meta repeats for up to 7 days."""
NOTICE_S = 600
"""A user is told of a refusal at most once in this time."""
MAX_ID_CHARS = 128
MAX_KEPT_BYTES = 32_768
"""Of one kept thing; of a larger one its beginning."""
_reject = Script("reject")


@dataclass(slots=True)
class Tally:
    """What became of a request's contents, for its log line."""

    accepted: int = 0
    replayed: int = 0
    rejected: int = 0
    statuses: int = 0
    kept: int = 0
    ignored: int = 0


class _Offer(NamedTuple):
    payload: TurnPayload
    repeat: Idempotency
    fault: JobError | None
    """Why it is refused whatever Redis says."""


async def take_in(ingress: Ingress, channel: OpenChannel, reading: Reading, said: "Origin") -> Tally:
    """Raises Unavailable or QueueFull: then the whole should be sent again."""
    offers = [_offer(ingress, channel, message, said) for message in reading.messages]
    if offers or reading.kept or reading.statuses:
        ingress.pressure.check()
    good = [offer for offer in offers if offer.fault is None]
    refused = [(offer, offer.fault) for offer in offers if offer.fault is not None]
    noting = [_note(ingress, channel, reading)] if reading.kept or reading.statuses else []
    admissions = (await _all([*(_admit(ingress, channel, offer) for offer in good), *noting]))[: len(good)]
    tally = Tally(statuses=len(reading.statuses), kept=len(reading.kept), ignored=reading.ignored)
    for offer, admission in zip(good, admissions, strict=True):
        metrics.count_admission(offer.payload.agent, outcome_of(admission))
        if fault := _fault(admission):
            refused.append((offer, fault))
        elif admission.outcome == "accepted":
            tally.accepted += 1
        else:
            tally.replayed += 1
    outcomes = await _all([_record_refusal(ingress, offer, fault) for offer, fault in refused])
    tally.rejected = outcomes.count("rejected")
    tally.replayed += outcomes.count("replayed")
    return tally


class Origin(NamedTuple):
    """The request that brings it."""

    request_id: str
    trace: dict[str, str]


def _offer(ingress: Ingress, channel: OpenChannel, message: Inbound, said: Origin) -> _Offer:
    record = channel.record
    agent = ingress.agents.get(record.agent)
    payload = TurnPayload(
        job_id=uuid7(),
        tenant=record.tenant,
        agent=record.agent,
        conversation_id=_bounded(f"{record.id}:{message.conversation}"),
        message=message.text,
        user_id=_bounded(f"{record.kind}:{message.user}"),
        queue=agent.queue if agent else "default",
        metadata={"channel": {"id": record.id, "kind": record.kind, **message.details}},
        callback_url=f"{ADDRESS}{record.id}",
        domain=record.domain,
        feature=record.feature,
        trace=said.trace,
        request_id=said.request_id,
    )
    digest = hashlib.sha256(f"{record.id}\0{message.id}".encode()).hexdigest()
    fault = None
    if agent is None:
        fault = JobError("unknown_agent", f"There is no agent {record.agent!r} any more.")
    elif len(message.text) > ingress.settings.max_message_chars:
        fault = JobError("too_large", f"The message has more than {ingress.settings.max_message_chars} characters.")
    return _Offer(payload, Idempotency("key", digest, ttl_s=REPEATED_FOR_S), fault)


def _bounded(name: str) -> str:
    """Names that are too long end in a digest of themselves."""
    if len(name) <= MAX_ID_CHARS:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name[: MAX_ID_CHARS - 33]}-{digest}"


async def _admit(ingress: Ingress, channel: OpenChannel, offer: _Offer) -> Admission:
    policy, window_s = _arrival(ingress, channel)
    limits = limits_of(
        channel.record.terms,
        ingress.budgets,
        tenant=channel.record.tenant,
        user_id=offer.payload.user_id,
        conversation_id=offer.payload.conversation_id,
        at_ms=time.time_ns() // 1_000_000,
        global_per_min=ingress.settings.global_per_min,
        endpoint="webhook",
    )

    def admit() -> Awaitable[Admission]:
        return ingress.intake.admit(
            offer.payload,
            ttl_s=ingress.settings.ttl_s,
            enqueued_ms=time.time_ns() // 1_000_000,
            idempotency=offer.repeat,
            policy=policy,
            merge_window_s=window_s,
            limits=limits,
        )

    return await _twice(admit)


def _arrival(ingress: Ingress, channel: OpenChannel) -> tuple[Policy, float]:
    """What the tenant wants for messages whose conversation is busy, else the agent."""
    agent = ingress.agents[channel.record.agent]
    wanted = channel.record.terms.policies.get(agent.id, Arrival())
    window_s = agent.merge_window_s if wanted.merge_window_s is None else wanted.merge_window_s
    return wanted.policy or agent.policy, window_s


def _fault(admission: Admission) -> JobError | None:
    """Why a message was refused for good. Raises QueueFull for one that should come again."""
    match admission.outcome:
        case "accepted" | "replayed" | "mismatch":
            return None
        case "owner":
            return JobError("conversation_owner", "This conversation belongs to another user.")
        case "busy":
            return JobError("conversation_busy", "This conversation is being answered; messages meanwhile are refused.")
        case "limited" | "spent":
            error = refusal_by(admission.refused_by)
            return JobError(error.code, str(error))
        case "full":
            raise QueueFull("The queue is full; try again later.", retry_after_s=FULL_RETRY_AFTER_S)


async def _record_refusal(ingress: Ingress, offer: _Offer, fault: JobError) -> str:
    """`rejected`, or `replayed` when it is another job already."""
    payload = offer.payload
    names = [
        keys.job(payload.job_id),
        keys.idempotency(payload.tenant, offer.repeat.digest),
        keys.notice(payload.tenant, payload.conversation_id),
    ]
    argv: list[Argument] = [
        payload.job_id,
        encode_turn(payload, enqueued_ms=time.time_ns() // 1_000_000),
        payload.user_id or "",
        REPEATED_FOR_S * 1000,
        NOTICE_S * 1000,
        msgspec.json.encode(fault),
        ingress.settings.result_ttl_s,
        *record_fields(payload),
    ]
    outcome, job_id, _notice = await _twice(lambda: _reject(ingress.commands, names, argv))
    log.info("message_rejected", job_id=job_id.decode(), agent=payload.agent, code=fault.code)
    return str(outcome.decode())


async def _note(ingress: Ingress, channel: OpenChannel, reading: Reading) -> None:
    """What is no message, for `workers.maintenance.inbox`."""
    received_us = time.time_ns() // 1_000
    head = {"channel": channel.record.id, "received_us": received_us}
    rows: list[dict[str, Any]] = [{**head, **msgspec.to_builtins(status)} for status in reading.statuses]
    rows += [{**head, **kept_row(kept)} for kept in reading.kept]
    for kept in reading.kept:
        log.warning("inbound_kept", channel=channel.record.id, reason=kept.reason)
    await ingress.commands.run("XADD", keys.INBOX, "*", "tenant", channel.record.tenant, "rows", jsonb(rows))


def kept_row(kept: Kept) -> dict[str, Any]:
    """Of a row of the inbox, what tells of it."""
    encoded = jsonb(kept.payload)
    digest = hashlib.sha256(f"{kept.reason}\0{encoded}".encode()).hexdigest()[:32]
    payload = kept.payload
    if len(encoded) > MAX_KEPT_BYTES:
        payload = {"cut": True, "bytes": len(encoded), "start": encoded[:MAX_KEPT_BYTES]}
    return {"digest": digest, "reason": kept.reason, "payload": payload}


async def _twice(call: Callable[[], Awaitable[T]]) -> T:
    """A second try, with the same job id, when the first may have been taken unheard."""
    try:
        return await call()
    except Unavailable:
        return await call()


async def _all(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """Every result, sent together. Raises the first error once all are over, so that none goes on unwatched."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
