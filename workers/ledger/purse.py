"""A worker's hands on the counters of spent money: hold what a call costs at most, later count what it cost.

Typed stubs of `reserve.lua` and `settle.lua`, one round trip each. Both are fenced by the job's claim: who holds the
job decides, so that the counters and the ledger agree to the nano-USD. Called by `workers.turn.spending`.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from shared import keys
from shared.budgets import CONVERSATION_IDLE_S, Scope
from shared.redis import Argument, Commands
from shared.scripts import Script
from workers.ledger.book import Amount, LedgerRow

_reserve, _settle = Script("reserve"), Script("settle")


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


class Purse:
    """Of one queue's workers. Every method is one round trip and raises Unavailable; repeating it is safe."""

    def __init__(self, commands: Commands, queue: str) -> None:
        self._commands = commands
        self._queue = queue

    async def reserve(
        self, job: Holder, offers: Sequence[Offer], scopes: Sequence[Scope], *, seed: Amount | None = None
    ) -> Answer:
        """Hold the first offer that fits, on every scope or on none. All offers are one call: they share its id.

        `seed` is what the conversation has spent, should Redis not know it; None: not known here either.
        """
        argv: list[Argument] = [job.worker, job.id, job.claim, offers[0].row.call_id, len(scopes)]
        for scope in scopes:
            argv += _scope(scope, seed)
        for offer in offers:
            row, most = offer.row, offer.most
            argv += [msgspec.json.encode(row), most.nano_usd, most.tokens, int(offer.cheap)]
            argv += [row.provider, row.model, offer.terms]
        return _answer(await _reserve(self._commands, [self._queue, keys.calls(job.id)], argv), scopes)

    async def settle(self, job: Holder, settlements: Sequence[Settlement]) -> bool:
        """Count what calls of this job cost, once each, and give back what was held for them; False: not ours."""
        argv: list[Argument] = [job.worker, job.id, job.claim]
        for each in settlements:
            argv += [each.call_id, each.row, each.amount.nano_usd, each.amount.tokens, each.told]
        return bool(await _settle(self._commands, [self._queue, keys.calls(job.id)], argv) == b"OK")


def _scope(scope: Scope, seed: Amount | None) -> list[Argument]:
    bounds = (scope.most_nano_usd, scope.most_tokens, scope.downgrade_nano_usd, scope.downgrade_tokens)
    if scope.expires_at_s is not None:  # of a period: it begins with nothing
        lasting: tuple[Argument, Argument] = (scope.expires_at_s, "0 0")
    else:
        lasting = (f"+{CONVERSATION_IDLE_S}", "" if seed is None else f"{seed.nano_usd} {seed.tokens}")
    return [scope.key, *("" if bound is None else bound for bound in bounds), *lasting]


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
