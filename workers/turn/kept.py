"""A turn and the response cache: what it asks, whether it may be answered from there, and the row of such an answer.

A kept answer is no call: its row costs nothing, counts no tokens and says what was saved. It is not booked in Redis
first, for a crash loses no money with it, and goes to Postgres with the turn's end.
"""

import time

from agents.api import Prompt
from shared.ids import uuid7
from workers.cache import question
from workers.cache.flight import Cache
from workers.cache.question import Question
from workers.cache.store import Answer
from workers.ledger.book import LedgerRow
from workers.turn.work import Work

_OUTSIDE = frozenset({"worker_lost", "unavailable", "upstream_unavailable", "upstream_rate_limited"})
"""Why an attempt can fail that got no answer."""


def question_of(work: Work, prompt: Prompt, cache: Cache | None) -> Question | None:
    """What the prompt asks; None where others cannot ask the same, or nobody wants it kept."""
    if cache is None or work.agent is None:
        return None
    own_ttl_s = work.settings.cache_ttl_s
    return question.question_of(
        work.agent,
        prompt,
        text=work.question,
        deployment=cache.deployment,
        tenant=work.payload.tenant,
        ttl_s=cache.ttl_s if own_ttl_s is None else own_ttl_s,
    )


def may_be_shown_again(work: Work) -> bool:
    """Not after an attempt that failed on what it got, nor when an operator runs the job once more."""
    return work.job.run == 1 and all(error.code in _OUTSIDE for error in work.errors)


def hit_row(work: Work, answer: Answer, *, waited_s: float) -> LedgerRow:
    """`latency_ms` and `ttft_ms` are the time that the answer took to come here."""
    payload, took_ms = work.payload, round(waited_s * 1000, 3)
    return LedgerRow(
        call_id=uuid7(),
        job_id=payload.job_id,
        run=work.job.run,
        attempt=work.job.attempt,
        agent=payload.agent,
        conversation_id=payload.conversation_id,
        user_id=work.user_id,
        domain=payload.domain,
        feature=payload.feature,
        provider=answer.provider,
        model=answer.model,
        model_used=answer.model_used,
        started_us=time.time_ns() // 1_000 - int(waited_s * 1e6),
        status="cached",
        estimated=False,
        saved_nano_usd=answer.cost_nano_usd,
        latency_ms=took_ms,
        ttft_ms=took_ms,
    )


def cache_of(work: Work) -> str | None:
    """What the job shows of this attempt's answers."""
    kept = any(row.status == "cached" and row.attempt == work.job.attempt for row in work.rows.values())
    return "exact" if kept else None


def is_call(row: LedgerRow) -> bool:
    """Whether a provider was asked."""
    return row.status not in ("unsent", "cached")
