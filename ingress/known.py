"""What is asked of Postgres for nearly every request and changes rarely: local cache → Redis → Postgres.

No answer is used for longer than `ttl_s` after Postgres gave it, so that a change is in force everywhere by then and
Redis need not be told. While Postgres is down, what it confirmed in the last day stays in use; what it never did raises
Unavailable. What is in use is confirmed ahead of time in the background, so its requests wait for nothing. API keys
(`ingress.auth`) and channels (`ingress.channels.directory`) are kept so.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

import msgspec
import structlog

from ingress.strangers import Attempt
from ingress.tasks import stop
from shared.errors import Unavailable
from shared.redis import Commands

log = structlog.get_logger(__name__)

STALE_MS = 86_400_000
"""How long an answer may be used while Postgres cannot be asked; also its time to live in Redis."""
MAX_KNOWN = 10_000
SHOWN_CHARS = 30
"""How much of an answer's name in Redis is logged: a channel's whole, of a key's SHA-256 the beginning."""
T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    value: T | None
    confirmed_s: float
    """Monotonic time at which Postgres said so."""


class Known(Generic[T]):
    """Bounded: the least recently used are forgotten first."""

    def __init__(
        self,
        commands: Commands,
        kind: type[T],
        *,
        key: Callable[[str], str],
        ask: Callable[[str], Awaitable[T | None]],
        ttl_s: float,
    ) -> None:
        """`key` names an answer in Redis, `ask` gets it from Postgres and raises Unavailable."""
        self._commands, self._kind, self._key, self._ask, self._ttl_s = commands, kind, key, ask, ttl_s
        self._half_ttl_s = ttl_s / 2
        """From this age on an answer that is used is confirmed."""
        self._known: OrderedDict[str, _Answer[T]] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[T | None]] = {}

    def at_hand(self, name: str) -> T | None:
        """What `find` would answer without asking anybody; None also when it is due to be confirmed and nobody does so
        yet. Each message that is accepted comes through here."""
        known = self._known.get(name)
        if known is None:
            return None
        age_s = monotonic() - known.confirmed_s
        if age_s >= self._half_ttl_s and (age_s >= self._ttl_s or name not in self._lookups):
            return None
        self._known.move_to_end(name)
        return known.value

    async def find(self, name: str, attempt: Attempt) -> T | None:
        """None when there is none. What neither this process nor Redis knows is counted against its address before
        Postgres is asked. Raises RateLimited or Unavailable."""
        known = self._known.get(name)
        age_s = monotonic() - known.confirmed_s if known else self._ttl_s
        if known and age_s < self._ttl_s:
            self._known.move_to_end(name)
            if age_s > self._half_ttl_s and known.value:
                self._lookup(name, attempt)
            return known.value
        return await asyncio.shield(self._lookup(name, attempt))

    async def aclose(self) -> None:
        await stop(*self._lookups.values())

    def _lookup(self, name: str, attempt: Attempt) -> "asyncio.Task[T | None]":
        """One look-up in flight per name, whoever waits for it, and whether or not they stay."""
        task = self._lookups.get(name)
        if task is None:
            task = self._lookups[name] = asyncio.create_task(self._confirm(name, attempt))
            task.add_done_callback(lambda done: self._looked_up(name, done))
        return task

    def _looked_up(self, name: str, task: "asyncio.Task[T | None]") -> None:
        del self._lookups[name]
        if not task.cancelled() and (error := task.exception()):  # those who wait are told; a refresh has nobody
            log.warning("not_confirmed", what=self._key(name)[:SHOWN_CHARS], error=repr(error))

    async def _confirm(self, name: str, attempt: Attempt) -> T | None:
        started_s = monotonic()
        cached, age_s = await self._from_redis(name)
        if cached and age_s < self._half_ttl_s:
            return self._remember(name, cached, started_s - age_s)
        try:
            value = await self._asked(name, None if cached or self._was_there(name) else attempt)
        except Unavailable:
            if cached is None:
                raise
            log.warning("stale_answer_used", what=self._key(name)[:SHOWN_CHARS], age_s=round(age_s, 3))
            return self._remember(name, cached, started_s)
        if value:
            # The time the question took counts as age: the answer is no younger than its question.
            spent_ms = int((monotonic() - started_s) * 1000)
            left_ms = max(1, STALE_MS - spent_ms)
            await self._commands.run("SET", self._key(name), msgspec.json.encode(value), "PX", left_ms)
        elif cached:
            await self._commands.run("DEL", self._key(name))
        return self._remember(name, value, started_s)

    def _was_there(self, name: str) -> bool:
        known = self._known.get(name)
        return known is not None and known.value is not None

    async def _asked(self, name: str, attempt: Attempt | None) -> T | None:
        """Postgres's answer; an `attempt` is counted first, so that a flood does not come through meanwhile."""
        if attempt is None:
            return await self._ask(name)
        await attempt.count()
        try:
            value = await self._ask(name)
        except Unavailable:  # nobody knows whether it is there
            await attempt.take_back()
            raise
        if value:
            await attempt.take_back()
        return value

    async def _from_redis(self, name: str) -> tuple[T | None, float]:
        """The shared answer and its age, told from what is left of its time to live: the server's clock, not ours."""
        key = self._key(name)
        raw, left_ms = await asyncio.gather(self._commands.run("GET", key), self._commands.run("PTTL", key))
        if raw is None or left_ms < 0:
            return None, 0.0
        try:
            return msgspec.json.decode(raw, type=self._kind), (STALE_MS - left_ms) / 1000
        except msgspec.MsgspecError:  # another version of us wrote it
            return None, 0.0

    def _remember(self, name: str, value: T | None, confirmed_s: float) -> T | None:
        self._known[name] = _Answer(value, confirmed_s)
        self._known.move_to_end(name)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return value
