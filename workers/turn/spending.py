"""The money of one attempt: every model call is reserved before it is made, and settled when it is over.

A call is never made without its row in Redis and its hold on every budget, and never by an attempt that has lost its
job. Settling goes on in the background while the turn goes on, and repeats itself until Redis has answered: `settled`
is awaited before the job's end is told. Called by `TurnContext`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, assert_never

import structlog

from shared.budgets import DeploymentBudgets, Scope, made_at_ms, scopes_of
from shared.errors import BudgetExhausted, LeaseLost, Unavailable
from workers import metrics
from workers.ledger.book import Amount, Call, LedgerRow
from workers.ledger.prices import PriceList
from workers.ledger.purse import Answer, Blocked, Busy, Closed, Down, Held, Lost, Offer, Settlement, Unseeded
from workers.queue.scripts import Claimed
from workers.turn.late import LateRows
from workers.turn.store import TurnStore, persist
from workers.turn.work import Work

log = structlog.get_logger("turn")

Reservation: TypeAlias = Held | Blocked | Busy | Down


class Till(Protocol):
    """Where money is counted; `workers.ledger.purse.Purse` says what the two do."""

    async def reserve(
        self, job: Claimed, offers: Sequence[Offer], scopes: Sequence[Scope], *, seed: Amount | None = None
    ) -> Answer: ...

    async def settle(self, job: Claimed, settlements: Sequence[Settlement]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Money:
    """What a worker process needs to spend any."""

    prices: PriceList
    budgets: DeploymentBudgets
    till: Till
    opened: Callable[[], Awaitable[None]]
    """Waits until what was spent is counted, after Redis lost its memory."""
    late: LateRows


class Spending:
    """Of one attempt."""

    def __init__(self, work: Work, money: Money, store: TurnStore, give_up: Callable[[], bool]) -> None:
        self._work, self._money, self._store, self._give_up = work, money, store, give_up
        self._seed = work.spent
        self._holds: dict[str, Amount] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._unsettled = False

    async def reserve(
        self, calls: Sequence[Call], *, cheap: Sequence[bool] = (), terms: Sequence[str] = ()
    ) -> Reservation:
        """Hold what one call comes to at most; `calls` are the ways to make it, best first, under one call id.

        Waits while Redis is away and while what was spent is counted anew: neither is an attempt. Raises LeaseLost when
        the job is no longer ours and Unavailable when waiting has become pointless.
        """
        offers = [
            Offer(call.row, call.most, cheap[n] if cheap else False, terms[n] if terms else "")
            for n, call in enumerate(calls)
        ]
        while True:
            answer = await self._ask(calls[0], offers)
            match answer:
                case Held():
                    call = calls[answer.index]
                    call.begin()
                    self._work.rows[call.row.call_id] = call.row
                    self._holds[call.row.call_id] = call.most
                    return answer
                case Blocked() | Busy() | Down():
                    return answer
                case Lost():
                    self._work.job.lost = True
                    raise LeaseLost("this attempt is no longer ours")
                case Closed():
                    await self._wait_for_the_count()
                case Unseeded():
                    work = self._work.payload
                    self._seed = await self._store.spent(work.tenant, work.conversation_id, self._give_up)
                case _:
                    assert_never(answer)

    def exhausted(self, blocked: Blocked) -> BudgetExhausted:
        """Why a call was not made, as its caller is told."""
        scope = blocked.scope
        whose = "the deployment's" if scope.kind.startswith("global") else "the"
        message = f"{whose} budget of this {scope.kind.removeprefix('global-')} does not allow another call"
        return BudgetExhausted(message, scope=scope.kind, resets_at_s=scope.ends_at_s)

    def settle(self, row: LedgerRow, told: str = "") -> "asyncio.Task[None]":
        """The exact row replaces the open one, in memory now; in Redis meanwhile, and done when that has it."""
        self._work.rows[row.call_id] = row
        metrics.count_call(row, self._work.agent.id if self._work.agent else metrics.UNKNOWN)
        held, amount = self._holds.get(row.call_id), row.amount
        if held is not None and (amount.nano_usd > held.nano_usd or amount.tokens > held.tokens):
            log.warning("hold_exceeded", **_excess(row, held))
        task = asyncio.ensure_future(self._settle(Settlement.of(row, told)))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def settled(self) -> None:
        """Returns when Redis has every settled row. Raises Unavailable when that became pointless to wait for."""
        while self._settling:
            await asyncio.wait(list(self._settling))
        if self._unsettled:
            raise Unavailable("a call could not be settled")

    async def _ask(self, call: Call, offers: Sequence[Offer]) -> Answer:
        scopes = self._scopes(call.row.call_id)
        try:
            return await persist(
                lambda: self._money.till.reserve(self._work.job, offers, scopes, seed=self._seed), self._give_up
            )
        except BaseException:  # what was sent may stand there, or arrive late
            self.settle(call.unsent())
            raise

    def _scopes(self, call_id: str) -> tuple[Scope, ...]:
        work = self._work
        return scopes_of(
            work.settings.budgets,
            self._money.budgets,
            tenant=work.payload.tenant,
            user_id=work.user_id,
            conversation_id=work.payload.conversation_id,
            at_ms=made_at_ms(call_id),
            unlimited=work.settings.unlimited,
        )

    async def _settle(self, settlement: Settlement) -> None:
        """An attempt that is no longer the job's changes nothing there: its row comes by way of the ledger."""
        try:
            await persist(lambda: self._money.till.settle(self._work.job, [settlement]), self._give_up)
        except Unavailable:
            self._unsettled = True
        except Exception as error:
            log.error("money.unsettled", call_id=settlement.call_id, exc_info=error)  # noqa: TRY400 - structlog's form of it
            self._unsettled = True

    async def _wait_for_the_count(self) -> None:
        """The counters are made from the ledger, so it must have what this attempt has spent."""
        work = self._work
        await self.settled()
        if rows := list(work.rows.values()):
            await self._store.post(work.payload.tenant, work.postable(), self._give_up, admitted_us=work.job.created_us)
            posted = [Settlement(row.call_id, row.amount) for row in rows]
            await persist(lambda: self._money.till.settle(work.job, posted), self._give_up)
        self._seed = None
        await self._money.opened()


def _excess(row: LedgerRow, held: Amount) -> dict[str, object]:
    return {
        "call_id": row.call_id,
        "provider": row.provider,
        "model": row.model,
        "cost_nano_usd": row.cost_nano_usd,
        "held_nano_usd": held.nano_usd,
        "tokens": row.amount.tokens,
        "held_tokens": held.tokens,
    }
