"""What one attempt looks like from outside: its wide line, its numbers, its part of the trace.

The runner notes in `Work` how the attempt ends; the witness tells of it once, whatever way it left. Durations since
admission are sums of one clock's differences (Redis's up to the claim, ours from there), so that clocks need not agree.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import structlog

from shared.jobs import usd
from shared.telemetry import context, logs, tracing
from shared.telemetry.metrics import child
from shared.telemetry.tracing import Span
from shared.wire import TurnPayload
from workers import metrics
from workers.ledger.book import LedgerRow
from workers.turn.kept import is_call
from workers.turn.work import Work, now_us

Outcome = Literal["ended", "retried", "announced", "released", "lost"]
"""`announced`: an earlier attempt had ended it, only the news was missing. `released`: handed back by a worker that
leaves. `lost`: it belongs to another worker by now."""


@contextmanager
def witnessed(work: Work) -> Iterator[None]:
    """Around one attempt: every line in between carries its ids."""
    job, payload = work.job, work.payload
    name = work.agent.id if work.agent else metrics.UNKNOWN
    trace = tracing.of_job(payload.trace)
    waited_s = _since_accepted(work, job.started_us)
    ids = _ids(payload, trace.trace_id if trace else None)
    with (
        structlog.contextvars.bound_contextvars(**ids),
        tracing.root(trace, "queue.process", f"job {name}", ago_s=waited_s if job.first else 0.0) as span,
    ):
        if job.first:
            span.past("queue.wait", payload.queue, seconds=waited_s)
            child(metrics.job_wait, name).observe(waited_s)
        with tracing.span("turn", name):
            yield from _watched(_Story(work, name, span, ids))


def _ids(payload: TurnPayload, trace_id: str | None) -> dict[str, str]:
    """What finds a line again."""
    ids = {
        "job_id": payload.job_id,
        "conversation_id": context.conversation(payload.conversation_id),
        "tenant": payload.tenant,
        "agent": payload.agent,
        "request_id": payload.request_id,
        "trace_id": trace_id,
    }
    return {name: value for name, value in ids.items() if value is not None}


def _watched(story: "_Story") -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        story.tell("lost" if story.work.job.lost else "released")
        raise
    else:
        story.tell(_outcome(story.work))


def _outcome(work: Work) -> Outcome:
    if work.retried:
        return "retried"
    return "ended" if work.record else "announced"


class _Story:
    """Begins when it is made."""

    def __init__(self, work: Work, agent: str, span: Span, ids: dict[str, str]) -> None:
        self.work, self._agent, self._span, self._ids = work, agent, span, ids
        self._began_us, self._began_s = now_us(), time.monotonic()

    def tell(self, outcome: Outcome) -> None:
        work, job, took_s = self.work, self.work.job, time.monotonic() - self._began_s
        total_s = _since_accepted(work, int(job.claim)) + took_s
        own = [row for call_id, row in work.rows.items() if call_id not in job.open_calls]
        calls = [row for row in own if is_call(row)]
        kept = [row for row in own if row.status == "cached"]
        first_s = self._first_text_s([*calls, *kept])
        self._count(outcome, took_s, total_s, first_s)
        state = work.record.state.value if work.record else outcome
        error = work.retried or (work.record.error if work.record else None)
        self._span.tell(job_id=job.id, attempt=job.attempt, run=job.run, state=state, worker=job.worker)
        logs.wide(
            "job",
            **self._ids,
            state=state,
            code=error.code if error else None,
            queue=work.payload.queue,
            attempt=job.attempt,
            run=job.run,
            worker=job.worker,
            waited_ms=_ms(_since_accepted(work, job.started_us)),
            duration_ms=_ms(took_s),
            total_ms=_ms(total_s),
            first_token_ms=None if first_s is None else _ms(first_s),
            **_spent(calls),
            kept_answers=len(kept),
            **({"context": work.context} if work.context else {}),
            saved_usd=usd(sum(row.saved_nano_usd for row in kept)),
        )

    def _first_text_s(self, calls: list[LedgerRow]) -> float | None:
        """Since admission."""
        shown_us = [row.started_us + row.ttft_ms * 1000 for row in calls if row.ttft_ms is not None]
        before_s = _since_accepted(self.work, int(self.work.job.claim))
        return before_s + (min(shown_us) - self._began_us) / 1e6 if shown_us else None

    def _count(self, outcome: Outcome, took_s: float, total_s: float, first_s: float | None) -> None:
        agent, work = self._agent, self.work
        child(metrics.attempts, agent, outcome).inc()
        child(metrics.attempt_duration, agent).observe(took_s)
        if work.retried:
            child(metrics.retries, agent, work.retried.code).inc()
        if work.errors and any(e.code == "worker_lost" and e.attempt == work.job.attempt - 1 for e in work.errors):
            child(metrics.taken_over, agent).inc()
        if work.record:
            if work.agent is not None and work.agent.memory:
                metrics.count_recall(agent, str(work.context.get("recall", "whole")))
            state = work.record.state.value
            child(metrics.jobs_ended, agent, state).inc()
            child(metrics.job_duration, agent, state).observe(total_s)
            if first_s is not None and state == "succeeded":
                child(metrics.first_token, agent).observe(first_s)
            for earlier in work.taken_in:
                never_started(earlier.payload, earlier.state, into=work.job.id)


def never_started(payload: TurnPayload, state: str, *, into: str | None = None) -> None:
    """Of a job that no attempt was made at: it expired, was cancelled, or ended with another one's turn."""
    child(metrics.jobs_ended, payload.agent, state).inc()
    story = {"state": state, "queue": payload.queue, "attempt": 0, "merged_into": into if state == "merged" else None}
    logs.wide("job", **_ids(payload, tracing.trace_id(payload.trace)), **story)


def _spent(calls: list[LedgerRow]) -> dict[str, Any]:
    """What the attempt's model calls took; the model is that of the last one."""
    last = calls[-1] if calls else None
    return {
        "model_calls": len(calls),
        "provider": last and last.provider,
        "model": last and last.model,
        "input_tokens": sum(row.input_tokens for row in calls),
        "output_tokens": sum(row.output_tokens for row in calls),
        "cached_tokens": sum(row.cached_tokens for row in calls),
        "cost_usd": usd(sum(row.cost_nano_usd for row in calls)),
    }


def _since_accepted(work: Work, then_us: int) -> float:
    """Seconds from admission to a moment, both by Redis's clock."""
    created_us = work.job.created_us
    return 0.0 if created_us is None else max(0, then_us - created_us) / 1e6


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
