"""The books of one attempt: a row per model call, open in Redis before it, exact after it, in Postgres at the end.

A call is priced before it is made (an unknown price stops it). What a crash leaves in Redis is the row written before
the call: its input, flagged `lost`; the next attempt adds the output its readers saw and posts it. Called by the turn;
rows carry everything the ledger's columns hold, so that whoever finds one can post it.
"""

import time
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from agents.api import Completion, Prompt
from shared.errors import UpstreamError
from shared.ids import uuid7
from shared.jobs import Usage
from shared.wire import TurnPayload
from workers.ledger import tokens
from workers.ledger.prices import PriceList

Status = Literal["ok", "error", "cut", "aborted", "lost", "unsent", "cached"]
"""`cut`: it broke off or was silent; `aborted`: we stopped it; `lost`: the worker vanished. These are estimated.
`unsent`: reserved but never made; such a row is not posted. `cached`: no call, a kept answer instead of one."""


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `llm_calls`; the names are its columns'."""

    call_id: str
    job_id: str
    run: int
    attempt: int
    agent: str
    conversation_id: str
    user_id: str | None
    domain: str | None
    feature: str | None
    provider: str
    model: str
    started_us: int
    kind: str = "chat"
    status: Status = "lost"
    estimated: bool = True
    model_used: str | None = None
    error_code: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    """What a kept answer had cost when it was made."""
    unit_prices: dict[str, str] = {}  # msgspec copies an empty default
    price_version: str = ""
    latency_ms: float | None = None
    ttft_ms: float | None = None
    request_id: str | None = None
    raw_usage: dict[str, Any] = {}


class Call:
    """One model call under way."""

    def __init__(self, row: LedgerRow, prices: PriceList) -> None:
        self.row = row
        self._prices = prices
        self._started_at = time.monotonic()
        self._first_text_at: float | None = None
        self._seen: list[str] = []

    def saw(self, text: str) -> None:
        if self._first_text_at is None:
            self._first_text_at = time.monotonic()
        self._seen.append(text)

    @property
    def seen(self) -> str:
        return "".join(self._seen)

    def settled(self, completion: Completion) -> LedgerRow:
        """The exact row, by the provider's own account."""
        estimated = bool(completion.raw_usage.get("estimated"))
        return self._ended(
            "ok",
            completion.usage,
            estimated=estimated,
            model_used=completion.model,
            request_id=completion.request_id,
            raw_usage=dict(completion.raw_usage),
        )

    def failed(self, error: UpstreamError) -> LedgerRow:
        """A call that failed. One that was refused, or never reached the provider, costs nothing."""
        if error.billed or self._seen:
            return self._ended("cut", self._estimate(), estimated=True, error_code=error.code)
        return self._ended("error", Usage(), estimated=False, error_code=error.code)

    def aborted(self) -> LedgerRow:
        """A call we stopped: the provider bills what it was sent and what it had said."""
        return self._ended("aborted", self._estimate(), estimated=True)

    def unsent(self) -> LedgerRow:
        """A call whose reservation failed, so that it was not made; the reservation may stand in Redis."""
        return self._ended("unsent", Usage(), estimated=False)

    def _estimate(self) -> Usage:
        return Usage(self.row.input_tokens, tokens.count(self.seen, self.row.model))

    def _ended(self, status: Status, usage: Usage, **how: Any) -> LedgerRow:
        now = time.monotonic()
        first = self._first_text_at
        return msgspec.structs.replace(
            priced(self.row, usage, self._prices),
            status=status,
            latency_ms=round((now - self._started_at) * 1000, 3),
            ttft_ms=None if first is None else round((first - self._started_at) * 1000, 3),
            **how,
        )


def open_call(
    payload: TurnPayload,
    user_id: str | None,
    *,
    run: int,
    attempt: int,
    prompt: Prompt,
    provider: str,
    model: str,
    prices: PriceList,
) -> Call:
    """A call about to be made, with the row a crash would book. Raises AgentError `price_unknown`."""
    row = LedgerRow(
        call_id=uuid7(),
        job_id=payload.job_id,
        run=run,
        attempt=attempt,
        agent=payload.agent,
        conversation_id=payload.conversation_id,
        user_id=user_id,
        domain=payload.domain,
        feature=payload.feature,
        provider=provider,
        model=model,
        started_us=time.time_ns() // 1_000,
    )
    return Call(priced(row, Usage(input_tokens=tokens.count_prompt(prompt, model)), prices), prices)


def priced(row: LedgerRow, usage: Usage, prices: PriceList) -> LedgerRow:
    """`row` with these tokens and what they cost at the time of the call."""
    at = datetime.fromtimestamp(row.started_us / 1_000_000, UTC)
    charge = prices.price(row.provider, row.model, usage, at)
    return msgspec.structs.replace(
        row,
        **msgspec.structs.asdict(usage),
        cost_nano_usd=charge.cost_nano_usd,
        unit_prices=dict(charge.unit_prices),
        price_version=charge.version,
    )


def read_row(raw: bytes) -> LedgerRow:
    """A row found in Redis."""
    return msgspec.json.decode(raw, type=LedgerRow)


def lost_row(row: LedgerRow, seen: str, prices: PriceList) -> LedgerRow:
    """A call whose worker vanished during it, with the output its readers saw; a settled row stays as it is."""
    if row.status != "lost" or not seen:
        return row
    return priced(row, Usage(row.input_tokens, tokens.count(seen, row.model)), prices)
