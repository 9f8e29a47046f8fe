"""Answers in Redis, and the flights of those who ask for one: the scripts `cache_*.lua` behind typed methods.

Nothing here raises for a server that is away, full or slow: then there is no answer, and nobody waits for one. After a
failure the server is left alone for a second, so that an outage costs a turn no time.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
import structlog
from redis.exceptions import RedisError

from agents.api import Completion
from shared import keys
from shared.errors import Unavailable
from shared.jobs import Usage
from shared.redis import Argument, Commands
from shared.scripts import Script
from workers import metrics
from workers.cache.question import Question
from workers.cache.room import Room

log = structlog.get_logger("cache")

_ask, _hold, _keep, _land = (Script(f"cache_{verb}") for verb in ("ask", "hold", "keep", "land"))

PAUSE_S = 1.0
"""How long a server that failed is left alone."""
ALONE_S = 10.0
"""How long a question is everybody's own after an answer that is not to be shared."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer and what it had cost."""

    text: str
    provider: str
    model: str
    """The one asked for."""
    model_used: str
    cost_nano_usd: int

    def completion(self) -> Completion:
        """As if it had been made now, for nothing."""
        return Completion(self.text, "stop", Usage(), self.provider, self.model_used)


Found: TypeAlias = Answer | Literal["lead", "wait", "alone"]
"""`lead`: ask a model, others wait for it. `wait`: somebody does; look again. `alone`: ask, nobody waits."""


class AnswerStore:
    """`room` says whether the server may be given more to keep; without one it is the server's own affair."""

    def __init__(
        self, commands: Commands, *, stale_s: int, max_bytes: int, lease_s: float, room: Room | None = None
    ) -> None:
        self.lease_s = lease_s
        """After it a flight that was not renewed is anybody's."""
        self._commands = commands
        self._stale_s = stale_s
        self._max_bytes = max_bytes
        self._room = room
        self._pause_until = 0.0

    async def ask(self, question: Question, token: str) -> Found:
        argv: list[Argument] = [token, question.ttl_s * 1000, int(self.lease_s * 1000)]
        reply = await self._tried(lambda: _ask(self._commands, [_answer(question), _flight(question)], argv))
        match reply:
            case [b"HIT", raw]:
                return _read(raw) or "alone"
            case [b"LEAD"]:
                return "lead"
            case [b"WAIT"]:
                return "wait"
        return "alone"

    async def hold(self, flights: Mapping[str, Question]) -> None:
        """Renew the flights with these tokens."""
        names = [_flight(question) for question in flights.values()]
        argv: list[Argument] = [int(self.lease_s * 1000), *flights]
        await self._tried(lambda: _hold(self._commands, names, argv))

    async def keep(self, question: Question, token: str, answer: Answer, *, age_s: float = 0.0) -> None:
        """Keep `answer` for whoever asks next, and end the flight; only the latter where there is no room, and where
        somebody of the tenant was erased since it was asked for, `age_s` ago."""
        if self._room is not None and not await self._tried(self._room.there):
            await self.land(question, token)
            return
        names = [_answer(question), _flight(question), keys.CACHED_ORDER, keys.CACHED_SIZES]
        names.append(keys.erased(question.tenant))
        keep_ms = (question.ttl_s + self._stale_s) * 1000
        argv: list[Argument] = [token, msgspec.json.encode(answer), keep_ms, self._max_bytes, math.ceil(age_s * 1000)]
        kept: list[int] | None = await self._tried(lambda: _keep(self._commands, names, argv))
        if kept is not None:
            metrics.cache_bytes.set(kept[0])
            metrics.cache_evictions.inc(kept[1])

    async def land(self, question: Question, token: str, *, shareable: bool = True) -> None:
        """End a flight that brought nothing to keep; where that was not `shareable`, nobody waits for the next one."""
        argv: list[Argument] = [token, 0 if shareable else int(ALONE_S * 1000)]
        await self._tried(lambda: _land(self._commands, [_flight(question)], argv))

    async def stale(self, question: Question) -> Answer | None:
        """What is kept, however old."""
        kept: bytes | None = await self._tried(lambda: self._commands.run("GET", _answer(question)))
        return _read(kept.partition(b" ")[2]) if kept else None

    async def _tried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What the server says; None when it does not."""
        if time.monotonic() < self._pause_until:
            return None
        try:
            return await call()
        except (Unavailable, RedisError) as error:
            self._pause_until = time.monotonic() + PAUSE_S
            metrics.cache_failures.inc()
            log.warning("cache.away", fault=str(error))
        return None


def _answer(question: Question) -> str:
    return keys.cached(question.tenant, question.digest)


def _flight(question: Question) -> str:
    return keys.flight(question.tenant, question.digest)


def _read(raw: bytes) -> Answer | None:
    """None for what another version wrote."""
    try:
        return msgspec.json.decode(raw, type=Answer)
    except msgspec.MsgspecError:
        return None
