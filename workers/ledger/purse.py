"""A worker's hands on the counters of spent money: hold what a call costs at most, later count what it cost.

Typed stubs of `reserve.lua` and `settle.lua`. Calls that ask at the same moment share a script call, in which each has
its own answer: the counters of a tenant and of all are then read and written once. Both scripts are fenced by the job's
claim: who holds the job decides, so that the counters and the ledger agree to the nano-USD. Called by
`workers.turn.spending`.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from shared import keys
from shared.budgets import CONVERSATION_IDLE_S, Scope
from shared.redis import Argument, Commands
from shared.scripts import Script
from workers.joined import Joined
from workers.ledger.book import Amount, LedgerRow

_reserve, _settle = Script("reserve"), Script("settle")

MOST_TOGETHER = 32
"""Calls in one script: more would save little more, and everybody else waits for it."""


class Holder(Protocol):
    """Whose calls they are, and the claim that fences them: a job (`Claimed`), or a batch of embeddings."""

    @property
    def id(self) -> str: ...
    @property
    def worker(self) -> str: ...
    @property
    def claim(self) -> str: ...


class Offer(Struct, frozen=True):
    """One way to make a call: its row, what it comes to at most, and whether it is one of the cheap ways."""

    row: LedgerRow
    most: Amount
    cheap: bool = False
    terms: str = ""
    """Of its provider; see `shared/lua/_provider.lua`."""


class Held(Struct, frozen=True):
    """It may be made as the offer with this index. `past`: some scope wants cheaper models by now."""

    index: int
    past: bool = False


class Blocked(Struct, frozen=True):
    """It does not fit; `scope` is the narrowest that the last offer does not fit."""

    scope: Scope


class Busy(Struct, frozen=True):
    """The provider of this offer takes no more calls at the moment."""

    index: int
    retry_after_ms: int
    reason: str


class Down(Struct, frozen=True):
    """No offer that fits has a provider that answers; this one's is the first to be tried again."""

    index: int
    retry_after_ms: int
    reason: str


class Unseeded(Struct, frozen=True):
    """Redis does not know what this scope has spent: ask the ledger, and reserve again with that."""

    scope: Scope


class Closed(Struct, frozen=True):
    """Redis lost its memory: nothing is reserved until the counters are made anew."""


class Lost(Struct, frozen=True):
    """The job is no longer ours."""


Answer: TypeAlias = Held | Blocked | Busy | Down | Unseeded | Closed | Lost


class Settlement(Struct, frozen=True):
    """A call that is over, and what it came to."""

    call_id: str
    amount: Amount
    row: bytes = b""
    """Its exact row (JSON); empty when Postgres has it, so that Redis may forget it."""
    told: str = ""
    """Of its provider; see `shared/lua/_provider.lua`."""

    @classmethod
    def of(cls, row: LedgerRow, told: str = "") -> "Settlement":
        return cls(row.call_id, row.amount, msgspec.json.encode(row), told)


class _Reserving(NamedTuple):
    job: Holder
    offers: Sequence[Offer]
    scopes: Sequence[Scope]
    seed: Amount | None


class _Settling(NamedTuple):
    job: Holder
    settlements: Sequence[Settlement]


_Asked = TypeVar("_Asked", _Reserving, _Settling)


class Purse:
    """Of one queue's workers. Every method is at most one round trip and raises Unavailable; repeating it is safe."""

    def __init__(self, commands: Commands, queue: str) -> None:
        self._commands = commands
        self._queue = queue
        self._reserving: Joined[_Reserving, list[Any]] = Joined(
            self._reserve_all, lambda one: _alone(self._reserve_all, one), most=MOST_TOGETHER
        )
        self._settling: Joined[_Settling, bytes] = Joined(
            self._settle_all, lambda one: _alone(self._settle_all, one), most=MOST_TOGETHER
        )

    async def reserve(
        self, job: Holder, offers: Sequence[Offer], scopes: Sequence[Scope], *, seed: Amount | None = None
    ) -> Answer:
        """Hold the first offer that fits, on every scope or on none. All offers are one call: they share its id.

        `seed` is what the conversation has spent, should Redis not know it; None: not known here either.
        """
        return _answer(await self._reserving(_Reserving(job, offers, scopes, seed)), scopes)

    async def settle(self, job: Holder, settlements: Sequence[Settlement]) -> bool:
        """Count what calls of this job cost, once each, and give back what was held for them; False: not ours."""
        return await self._settling(_Settling(job, settlements)) == b"OK"

    async def _reserve_all(self, asked: Sequence[_Reserving]) -> list[list[Any]]:
        return await self._each_worker(asked, self._reserve_of)

    async def _settle_all(self, asked: Sequence[_Settling]) -> list[bytes]:
        return await self._each_worker(asked, self._settle_of)

    async def _reserve_of(self, worker: str, asked: Sequence[_Reserving]) -> list[list[Any]]:
        places: dict[tuple[Argument, ...], int] = {}
        calls: list[Argument] = []
        for job, offers, scopes, seed in asked:
            mine = [places.setdefault(_scope(scope, seed), len(places) + 1) for scope in scopes]
            calls += [job.id, job.claim, offers[0].row.call_id, " ".join(map(str, mine)), len(offers)]
            for offer in offers:
                row, most = offer.row, offer.most
                calls += [msgspec.json.encode(row), most.nano_usd, most.tokens, int(offer.cheap)]
                calls += [row.provider, row.model, offer.terms]
        argv = [worker, len(places), *(part for scope in places for part in scope), *calls]
        answers: list[list[Any]] = await _reserve(self._commands, self._keys(asked), argv)
        return answers

    async def _settle_of(self, worker: str, asked: Sequence[_Settling]) -> list[bytes]:
        argv: list[Argument] = [worker]
        for job, settlements in asked:
            argv += [job.id, job.claim, len(settlements)]
            for each in settlements:
                argv += [each.call_id, each.row, each.amount.nano_usd, each.amount.tokens, each.told]
        verdicts: list[bytes] = await _settle(self._commands, self._keys(asked), argv)
        return verdicts

    def _keys(self, asked: Sequence[_Reserving] | Sequence[_Settling]) -> list[str]:
        return [self._queue, *(keys.calls(each.job.id) for each in asked)]

    async def _each_worker(
        self, asked: Sequence[_Asked], of_one: Callable[[str, Sequence[_Asked]], Awaitable[Sequence[Any]]]
    ) -> list[Any]:
        """Answers in the order of `asked`. Claims are kept by worker: a lost incarnation asks under its own name."""
        by_worker: defaultdict[str, list[int]] = defaultdict(list)
        for place, each in enumerate(asked):
            by_worker[each.job.worker].append(place)
        answers: dict[int, Any] = {}
        for worker, places in by_worker.items():
            answers.update(zip(places, await of_one(worker, [asked[place] for place in places]), strict=True))
        return [answers[place] for place in range(len(asked))]


async def _alone(together: Callable[[Sequence[_Asked]], Awaitable[list[Any]]], one: _Asked) -> Any:
    (answer,) = await together([one])
    return answer


def _scope(scope: Scope, seed: Amount | None) -> tuple[Argument, ...]:
    bounds = (scope.most_nano_usd, scope.most_tokens, scope.downgrade_nano_usd, scope.downgrade_tokens)
    if scope.expires_at_s is not None:  # of a period: it begins with nothing
        lasting: tuple[Argument, Argument] = (scope.expires_at_s, "0 0")
    else:
        lasting = (f"+{CONVERSATION_IDLE_S}", "" if seed is None else f"{seed.nano_usd} {seed.tokens}")
    return (scope.key, *("" if bound is None else bound for bound in bounds), *lasting)


def _answer(reply: list[Any], scopes: Sequence[Scope]) -> Answer:
    match reply:
        case [b"HELD", index, past]:
            return Held(index, past == 1)
        case [b"BLOCKED" | b"UNSEEDED" as kind, index]:
            return Blocked(scopes[index]) if kind == b"BLOCKED" else Unseeded(scopes[index])
        case [b"BUSY" | b"DOWN" as kind, index, retry_after_ms, reason]:
            return (Busy if kind == b"BUSY" else Down)(index, retry_after_ms, reason.decode())
        case [b"CLOSED"]:
            return Closed()
        case [b"LOST"]:
            return Lost()
    raise ValueError(f"reserve answered {reply!r}")
