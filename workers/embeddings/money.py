"""The money of a batch: one provider call, paid by many. Held before it, divided after it, exact to the nano-USD.

Called by `writer`. Each payer has a reservation and a ledger row of its own, with the same scripts as a turn's calls;
in the job's place stands the batch, one per tenant. A batch belongs to its process until a moment that stands in Redis
(`sb:embedding:open`): of what a killed process leaves, `settle_left` posts the rows as lost and gives the holds back.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias, assert_never

import structlog

from shared import keys
from shared.budgets import DeploymentBudgets, Scope, made_at_ms, scopes_of
from shared.config import Settings
from shared.db import Pool
from shared.errors import AgentError, LeaseLost, Unavailable, UpstreamError
from shared.ids import uuid7
from shared.jobs import Usage
from shared.redis import Commands
from shared.tenants import TenantSettings, read_settings
from sql import queries
from workers import metrics
from workers.embeddings.api import Embedded, Embedder
from workers.embeddings.batch import Item, Payer
from workers.embeddings.shares import shares
from workers.erasure.subjects import Subjects
from workers.ledger.book import Amount, Call, LedgerRow, open_embedding, read_row
from workers.ledger.prices import PriceList
from workers.ledger.purse import Blocked, Busy, Closed, Down, Held, Lost, Offer, Purse, Settlement, Unseeded
from workers.routing.terms import told_of
from workers.turn.store import TurnStore, persist

log = structlog.get_logger("embeddings")

KIND = "embedding"
OWN_S = 90.0
"""How long a batch is its process's own: longer than any call and its booking take."""
_SWEPT_AT_ONCE = 50


class PutOff(NamedTuple):
    """Not now: why, and for how long."""

    why: str
    delay_s: float


class Holder(NamedTuple):
    """A tenant's part of a batch, in the place of a job. Its id is the `job_id` of its ledger rows."""

    id: str
    worker: str
    claim: str


@dataclass(slots=True)
class Bill:
    """What one provider call comes to, by payer. `put_off` are those who do not take part."""

    holders: dict[str, Holder] = field(default_factory=dict)
    """By tenant."""
    calls: dict[Payer, Call] = field(default_factory=dict)
    put_off: dict[Payer, PutOff] = field(default_factory=dict)


Asked: TypeAlias = Held | PutOff


class Cashier:
    """One per process. Methods raise Unavailable while Redis or Postgres is away: what is open is settled later."""

    def __init__(
        self,
        settings: Settings,
        commands: Commands,
        pool: Pool,
        prices: Callable[[], PriceList],
        subjects: Subjects,
    ) -> None:
        """`prices` are asked for when something is bought: reading them takes a moment."""
        self._commands, self._pool, self._prices = commands, pool, prices
        self._budgets = DeploymentBudgets.of(settings)
        self._purse = Purse(commands, keys.EMBEDDING)
        self._store = TurnStore(pool, subjects)
        self._process = uuid7()
        self._terms = terms_of(settings)
        self._settling: set[asyncio.Task[None]] = set()

    async def reserve(self, items: Sequence[Item], embedder: Embedder) -> Bill:
        """Hold what the items come to at most, on every scope of every payer or not at all for that one."""
        counted: dict[Payer, int] = {}
        for item in items:
            counted[item.payer] = counted.get(item.payer, 0) + embedder.count(item.text)
        bill = Bill()
        tenants = {payer.tenant for payer in counted}
        settings = await self._tenants(tenants)
        for tenant in tenants:
            bill.holders[tenant] = await self._begin(tenant)
        asking = [
            self._reserve(bill, payer, tokens, embedder, settings.get(payer.tenant))
            for payer, tokens in counted.items()
        ]
        try:
            await all_of(asking)
        except BaseException:  # what was sent may stand there, or arrive late
            self.void(bill)
            raise
        return bill

    def exact(self, bill: Bill, items: Sequence[Item], embedder: Embedder, embedded: Embedded) -> list[LedgerRow]:
        """The rows of a call that succeeded: its tokens and price, divided among the payers to the last nano-USD."""
        used: dict[Payer, int] = dict.fromkeys(bill.calls, 0)
        for item, tokens in zip(items, embedded.tokens, strict=True):
            used[item.payer] += tokens
        total = Usage(input_tokens=sum(used.values()))
        at = datetime.now(UTC)
        cost = self._prices().price(embedder.provider, embedder.model, total, at).cost_nano_usd
        parts = shares(cost, list(used.values())) if total.input_tokens else [0] * len(used)
        how = {
            "estimated": bool(embedded.raw_usage.get("estimated")),
            "model_used": embedded.model,
            "request_id": embedded.request_id,
        }
        # Not the provider's whole account: what others paid for is not theirs to see.
        return [
            bill.calls[payer].embedded(tokens, part, raw_usage={"prompt_tokens": tokens, "part": len(used) > 1}, **how)
            for (payer, tokens), part in zip(used.items(), parts, strict=True)
        ]

    def failed(self, bill: Bill, error: UpstreamError) -> list[LedgerRow]:
        return [call.failed(error) for call in bill.calls.values()]

    def abort(self, bill: Bill) -> None:
        """A call we stopped: in the background, what it is taken to have cost is booked."""
        self._later(bill, [call.aborted() for call in bill.calls.values()])

    async def settle(self, bill: Bill, rows: Sequence[LedgerRow], outcome: BaseException | None = None) -> None:
        """Post the rows that cost something, count them, give the holds back. `outcome`: why there is no answer.

        It goes on when its caller is told to stop; `aclose` waits for it.
        """
        await asyncio.shield(self._kept(self._settle(bill, rows, outcome)))

    async def _settle(self, bill: Bill, rows: Sequence[LedgerRow], outcome: BaseException | None) -> None:
        told = "ok -" if outcome is None else told_of(outcome)
        by_call = {row.call_id: row for row in rows}
        parts = []
        for tenant, holder in bill.holders.items():
            mine = [by_call[call.row.call_id] for payer, call in bill.calls.items() if payer.tenant == tenant]
            parts.append(self._close(tenant, holder, mine, told))
            told = "" if mine else told  # one call was made, however many paid
        await all_of(parts)
        for row in rows:
            metrics.count_use(row, row.agent)

    async def aclose(self) -> None:
        """Waits for what is being settled."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=5.0)
        for task in list(self._settling):
            task.cancel()

    async def settle_left(self) -> int:
        """Batches of processes that are gone: their rows are posted as they stand, their holds go back. How many."""
        now_ms = await self._now_ms()
        found = await self._commands.run(
            "ZRANGEBYSCORE", keys.EMBEDDING_OPEN, "-inf", now_ms, "LIMIT", 0, _SWEPT_AT_ONCE
        )
        for member in found:
            batch, process, tenant = member.decode().split(" ", 2)
            holder = Holder(batch, process, uuid7())
            await self._commands.run("HSET", keys.held(keys.EMBEDDING, process), batch, holder.claim)
            await self._take_over(tenant, holder)
        return len(found)

    async def _take_over(self, tenant: str, holder: Holder) -> None:
        kept = await self._commands.run("HGETALL", keys.calls(holder.id))
        rows = [read_row(raw) for name, raw in kept.items() if not name.endswith(keys.HOLD.encode())]
        if rows:
            log.warning("embeddings.batch_lost", batch=holder.id, tenant=tenant, payers=len(rows))
        await self._close(tenant, holder, rows, "")

    # --- one payer ------------------------------------------------------------------------------------------------

    async def _reserve(
        self, bill: Bill, payer: Payer, tokens: int, embedder: Embedder, settings: TenantSettings | None
    ) -> None:
        if settings is None:
            bill.put_off[payer] = PutOff("tenant_disabled", 3_600.0)
            return
        try:
            call = open_embedding(_row(payer, bill.holders[payer.tenant], embedder), tokens, self._prices())
        except AgentError as error:
            bill.put_off[payer] = PutOff(error.code, 600.0)
            return
        bill.calls[payer] = call
        asked = await self._ask(bill.holders[payer.tenant], payer, call, settings)
        if isinstance(asked, Held):
            call.begin()
        else:
            bill.put_off[payer] = asked
            del bill.calls[payer]

    async def _ask(self, holder: Holder, payer: Payer, call: Call, settings: TenantSettings) -> Asked:
        offer = Offer(call.row, call.most, terms=f"{self._terms} {call.row.input_tokens} 0")
        scopes, seed = self._scopes(call.row, payer, settings), None
        while True:
            answer = await self._purse.reserve(holder, [offer], scopes, seed=seed)
            match answer:
                case Held():
                    return answer
                case Blocked():
                    return PutOff("budget", 600.0)
                case Busy() | Down():
                    return PutOff("provider_paused", max(1.0, answer.retry_after_ms / 1000))
                case Closed() | Lost():  # Redis lost its memory: others see to the counters
                    return PutOff("money_closed", 5.0)
                case Unseeded():
                    seed = await self._spent(payer)
                case _:
                    assert_never(answer)

    def _scopes(self, row: LedgerRow, payer: Payer, settings: TenantSettings) -> tuple[Scope, ...]:
        return scopes_of(
            settings.budgets,
            self._budgets,
            tenant=payer.tenant,
            user_id=payer.user_id,
            conversation_id=payer.conversation_id,
            at_ms=made_at_ms(row.call_id),
            unlimited=settings.unlimited,
        )

    async def _spent(self, payer: Payer) -> Amount:
        return await self._store.spent(payer.tenant, payer.conversation_id, _at_once)

    async def _tenants(self, tenants: Iterable[str]) -> Mapping[str, TenantSettings]:
        """Of those that are not disabled."""
        rows = await self._pool.fetch(queries["settings_of_tenants"], list(tenants))
        return {row["tenant_id"]: read_settings(row["settings"]) for row in rows}

    # --- one tenant -----------------------------------------------------------------------------------------------

    async def _begin(self, tenant: str) -> Holder:
        """Killed after the first command, the entry is swept; after the second, a fence that guards nothing."""
        holder = Holder(uuid7(), self._process, uuid7())
        until_ms = await self._now_ms() + int(OWN_S * 1000)
        await self._commands.run("ZADD", keys.EMBEDDING_OPEN, until_ms, _member(tenant, holder))
        await self._commands.run("HSET", keys.held(keys.EMBEDDING, holder.worker), holder.id, holder.claim)
        return holder

    async def _close(self, tenant: str, holder: Holder, rows: Sequence[LedgerRow], told: str) -> None:
        """What the ledger has for the calls is what is counted: somebody who took over may have come first."""
        owed = [row for row in rows if row.amount != Amount(0, 0) and row.status != "unsent"]
        try:
            booked = await self._store.book(tenant, owed, _at_once) if owed else {}
        except Unavailable:
            exact = [Settlement.of(row) for row in owed]  # for whoever settles it later
            await self._purse.settle(holder, exact)
            raise
        settlements = [
            Settlement(row.call_id, booked.get(row.call_id, Amount(0, 0)), told="" if index else told)
            for index, row in enumerate(rows)
        ]
        if await self._purse.settle(holder, settlements):
            await self._commands.run("ZREM", keys.EMBEDDING_OPEN, _member(tenant, holder))
            await self._commands.run("HDEL", keys.held(keys.EMBEDDING, holder.worker), holder.id)

    def void(self, bill: Bill) -> None:
        """Nothing was asked of the provider: in the background, give back what may be held."""
        self._later(bill, [call.unsent() for call in bill.calls.values()])

    def _later(self, bill: Bill, rows: Sequence[LedgerRow]) -> None:
        """Until Redis and Postgres have answered; what is given up then, whoever sweeps the batch books as lost."""
        until_s = time.monotonic() + OWN_S / 2
        stopped = LeaseLost("stopped")
        self._kept(persist(lambda: self._settle(bill, rows, stopped), lambda: time.monotonic() > until_s))

    def _kept(self, settling: "Coroutine[Any, Any, None]") -> "asyncio.Task[None]":
        task = asyncio.create_task(settling)
        self._settling.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: "asyncio.Task[None]") -> None:
        self._settling.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("embeddings.unsettled", fault=str(error))

    async def _now_ms(self) -> int:
        """Redis's clock: batches of several processes stand in one list."""
        seconds, micros = await self._commands.run("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def terms_of(settings: Settings) -> str:
    """No limits: providers count embeddings apart from chat. A model that fails is left alone for a while."""
    milliseconds = (settings.provider_patience_s, settings.breaker_window_s, settings.breaker_cooldown_s)
    patience, window, cooldown = (int(seconds * 1000) for seconds in milliseconds)
    return f"- - - {patience} {settings.breaker_failures} {window} {cooldown}"


async def all_of(work: "Iterable[Coroutine[Any, Any, None]]") -> None:
    """All to their ends, then the first error, if there was one: nothing goes on behind the caller's back."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _at_once() -> bool:
    """Nothing waits here while Postgres is away."""
    return True


def _row(payer: Payer, holder: Holder, embedder: Embedder) -> LedgerRow:
    return LedgerRow(
        call_id=uuid7(),
        job_id=holder.id,
        run=1,
        attempt=1,
        agent=payer.agent,
        conversation_id=payer.conversation_id,
        user_id=payer.user_id,
        domain=payer.domain,
        feature=payer.feature,
        provider=embedder.provider,
        model=embedder.model,
        started_us=time.time_ns() // 1_000,
        kind=KIND,
    )


def _member(tenant: str, holder: Holder) -> str:
    return f"{holder.id} {holder.worker} {tenant}"
