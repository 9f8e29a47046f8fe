"""The books of one attempt: a row per model call, open in Redis before it, exact after it, in Postgres at the end.

A call is priced before it is made (an unknown price stops it): what it costs at most is held. What a crash leaves in
Redis is the row written before the call: its input, flagged `lost`; the next attempt adds the output its readers saw
and posts it. Called by the turn; rows carry everything the ledger's columns hold: whoever finds one can post it.
"""

import time
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from agents.api import Completion, Prompt
from shared.errors import AgentError, UpstreamError
from shared.ids import uuid7
from shared.jobs import Usage
from shared.wire import TurnPayload
from workers.ledger import tokens
from workers.ledger.prices import PriceList
from workers.queue.scripts import Claimed

Status = Literal["ok", "error", "cut", "aborted", "lost", "unsent", "cached"]
"""`cut`: it broke off or was silent; `aborted`: we stopped it; `lost`: the worker vanished. These are estimated.
`unsent`: reserved but never made; such a row is not posted. `cached`: no call, a kept answer instead of one."""


class Amount(NamedTuple):
    """What budgets count."""

    nano_usd: int
    tokens: int


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `llm_calls`; the names are its columns', but for `max_tokens`."""

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
    max_tokens: int = 0
    """Bound of the reply, so that no estimate goes beyond what was held; 0: not known."""

    @property
    def amount(self) -> Amount:
        return Amount(self.cost_nano_usd, self.input_tokens + self.output_tokens)


class Call:
    """One model call under way."""

    def __init__(self, row: LedgerRow, prices: PriceList, most: Amount) -> None:
        self.row = row
        self.most = most
        """What it can come to, whatever the provider caches and however long it lets the reply get."""
        self._prices = prices
        self._started_at = time.monotonic()
        self._first_text_at: float | None = None
        self._seen: list[str] = []

    def of_kind(self, kind: str) -> "Call":
        """Itself, to be booked as that."""
        self.row = msgspec.structs.replace(self.row, kind=kind)
        return self

    def begin(self) -> None:
        """It is made now: whatever it waited for is not the provider's."""
        self._started_at = time.monotonic()

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

    def embedded(self, input_tokens: int, cost_nano_usd: int, **how: Any) -> LedgerRow:
        """The exact row of one part of a call that was made for several: its part of the tokens and of the price."""
        row = self._ended("ok", Usage(input_tokens=input_tokens), **how)
        return msgspec.structs.replace(row, cost_nano_usd=cost_nano_usd)

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
        return _seen(self.row, self.seen)

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
    job: Claimed,
    *,
    prompt: Prompt,
    provider: str,
    model: str,
    prices: PriceList,
    call_id: str | None = None,
) -> Call:
    """A call about to be made, with the row a crash would book. Raises AgentError `price_unknown`.

    Of several that only one is going to be made of, each has the same `call_id`.
    """
    row = LedgerRow(
        call_id=call_id or uuid7(),
        job_id=payload.job_id,
        run=job.run,
        attempt=job.attempt,
        agent=payload.agent,
        conversation_id=payload.conversation_id,
        user_id=user_id,
        domain=payload.domain,
        feature=payload.feature,
        provider=provider,
        model=model,
        started_us=time.time_ns() // 1_000,
        max_tokens=prompt.max_tokens,
    )
    expected, at_most = tokens.measure_prompt(prompt, model)
    most_nano_usd = prices.most_nano_usd(
        provider, model, input_tokens=at_most, output_tokens=prompt.max_tokens, at=_moment(row)
    )
    most = Amount(most_nano_usd, at_most + prompt.max_tokens)
    return Call(priced(row, Usage(input_tokens=expected), prices), prices, most)


def open_embedding(row: LedgerRow, input_tokens: int, prices: PriceList) -> Call:
    """An embedding about to be made for `row`, of that many tokens by our count. Raises AgentError `price_unknown`."""
    at_most = input_tokens + tokens.margin(input_tokens)
    most_nano_usd = prices.most_nano_usd(
        row.provider, row.model, input_tokens=at_most, output_tokens=0, at=_moment(row)
    )
    return Call(priced(row, Usage(input_tokens=input_tokens), prices), prices, Amount(most_nano_usd, at_most))


def priced(row: LedgerRow, usage: Usage, prices: PriceList) -> LedgerRow:
    """`row` with these tokens and what they cost at the time of the call."""
    charge = prices.price(row.provider, row.model, usage, _moment(row))
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
    """A call whose worker vanished during it, with the output its readers saw; a settled row stays as it is.

    When its price is known no more, by this release, its input stays what is booked.
    """
    if row.status != "lost" or not seen:
        return row
    try:
        return priced(row, _seen(row, seen), prices)
    except AgentError:
        return row


def _seen(row: LedgerRow, text: str) -> Usage:
    """What a call is taken to have used of which only this text was seen."""
    output_tokens = tokens.count(text, row.model)
    return Usage(row.input_tokens, min(output_tokens, row.max_tokens) if row.max_tokens else output_tokens)


def _moment(row: LedgerRow) -> datetime:
    return datetime.fromtimestamp(row.started_us / 1_000_000, UTC)
