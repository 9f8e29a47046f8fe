"""One of all who ask the same question at once asks the model; the others wait for its answer.

Within a process they wait for a future and cost Redis nothing; one of them asks Redis for all. Between processes the
asker holds a flight (`sb:flight:…`), renewed while its call runs, and the others look again after a tenth of the time
they have waited. Whoever asks may fail, be cancelled or be killed: then one of those who wait asks next, never all at
once. Who waits is shown nothing of an answer under way, but the whole at its end; waiting is part of his own time.
"""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, NamedTuple, TypeAlias

from agents.api import Completion
from shared.errors import AgentError, UpstreamRejected
from shared.telemetry.metrics import child
from workers import metrics
from workers.cache.question import Question
from workers.cache.store import Answer, AnswerStore

LOOK_SOONEST_S = 0.02
LOOK_LATEST_S = 0.5
LOOK_AFTER_SHARE = 0.1
"""Of the time waited so far: the longer a call takes, the rarer the looks."""

_LIKELY_ALL = (AgentError, UpstreamRejected)
"""Refusals: the next asker would get one too, so that nobody should wait for his."""


class Paid(NamedTuple):
    """What a model said, which one was asked for, and what that cost."""

    completion: Completion
    model: str
    cost_nano_usd: int


Ask: TypeAlias = Callable[[], Awaitable[Paid]]
Landed: TypeAlias = Answer | Literal["next", "alone"]
"""How a flight of this process ended: with an answer for all; `next`: one of those who wait asks; `alone`: all ask."""


class Cache:
    def __init__(self, store: AnswerStore, *, deployment: str, ttl_s: int) -> None:
        self.deployment = deployment
        """Part of every question: two deployments may share a server of answers."""
        self.ttl_s = ttl_s
        """Where the tenant has none of its own."""
        self._store = store
        self._flights: dict[Question, asyncio.Future[Landed]] = {}
        self._leading: dict[str, Question] = {}
        """Flights that Redis counts as ours, by token."""
        self._holder: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._process, self._numbers = secrets.token_hex(8), itertools.count()

    async def answered(self, question: Question, ask: Ask) -> Answer | Completion:
        """A kept answer, or what `ask` got. Raises what `ask` raises."""
        began = time.monotonic()
        while (ahead := self._flights.get(question)) is not None:
            landed = await asyncio.shield(ahead)
            if isinstance(landed, Answer):
                return _hit(question, landed, began, "joined")
            if landed == "alone":
                return await self._alone(question, ask)
        return await self._fly(question, ask, began)

    async def stale(self, question: Question) -> Answer | None:
        """What is kept of it, however old."""
        return await self._store.stale(question)

    async def aclose(self) -> None:
        """Returns when Redis was told of every flight, or cannot be."""
        while self._telling:
            await asyncio.wait(list(self._telling))
        if self._holder is not None:
            self._holder.cancel()
            await asyncio.wait([self._holder])

    async def _fly(self, question: Question, ask: Ask, began: float) -> Answer | Completion:
        """As the first of this process."""
        flight = self._flights[question] = asyncio.get_running_loop().create_future()
        token = f"{self._process}.{next(self._numbers)}"
        landed: Landed = "next"
        try:
            found = await self._look(question, token)
            landed = found if isinstance(found, Answer) else "alone"
            if found == "lead":
                completion, landed = await self._lead(question, token, ask)
        except BaseException as error:
            landed = "alone" if isinstance(error, _LIKELY_ALL) else "next"
            # Also where the flight may not be ours: we can have been stopped before we knew.
            self._tell(self._store.land(question, token, shareable=landed == "next"))
            raise
        finally:
            del self._flights[question]
            flight.set_result(landed)
        if isinstance(found, Answer):
            looked_again = time.monotonic() - began >= LOOK_SOONEST_S
            return _hit(question, found, began, "joined" if looked_again else "hit")
        return completion if found == "lead" else await self._alone(question, ask)

    async def _look(self, question: Question, token: str) -> Answer | Literal["lead", "alone"]:
        """Until there is an answer or nobody asks for one."""
        began = time.monotonic()
        while (found := await self._store.ask(question, token)) == "wait":
            pause_s = LOOK_AFTER_SHARE * (time.monotonic() - began) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads looks
            await asyncio.sleep(min(max(pause_s, LOOK_SOONEST_S), LOOK_LATEST_S))
        return found

    async def _lead(self, question: Question, token: str, ask: Ask) -> tuple[Completion, Landed]:
        """Asks for all who wait."""
        self._leading[token] = question
        if self._holder is None or self._holder.done():
            self._holder = asyncio.ensure_future(self._hold())
        asked_s = time.monotonic()
        try:
            completion, answer = await _asked(question, ask)
        finally:
            del self._leading[token]
        if answer is None:
            self._tell(self._store.land(question, token, shareable=False))
            return completion, "alone"
        self._tell(self._store.keep(question, token, answer, age_s=time.monotonic() - asked_s))
        return completion, answer

    async def _alone(self, question: Question, ask: Ask) -> Completion:
        """Without waiting and without being waited for; a good answer is for the others all the same."""
        asked_s = time.monotonic()
        completion, answer = await _asked(question, ask)
        if answer is not None:
            self._tell(self._store.keep(question, "", answer, age_s=time.monotonic() - asked_s))
        return completion

    async def _hold(self) -> None:
        """Renews our flights, as long as there are any."""
        while self._leading:
            await asyncio.sleep(self._store.lease_s / 3)
            if self._leading:
                await self._store.hold(dict(self._leading))

    def _tell(self, told: Coroutine[Any, Any, None]) -> None:
        """Redis learns of it while the turn goes on."""
        task = asyncio.ensure_future(told)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


async def _asked(question: Question, ask: Ask) -> tuple[Completion, Answer | None]:
    """What a model said, and that as an answer for others: None when it is not whole, or a refusal."""
    child(metrics.cache_lookups, question.agent, "miss").inc()
    completion, model, cost_nano_usd = await ask()
    if completion.finish != "stop" or not completion.text.strip():
        return completion, None
    return completion, Answer(completion.text, completion.provider, model, completion.model, cost_nano_usd)


def _hit(question: Question, answer: Answer, began: float, result: str) -> Answer:
    """`joined`: while somebody asked for it."""
    child(metrics.cache_lookups, question.agent, result).inc()
    child(metrics.cache_wait, question.agent).observe(time.monotonic() - began)
    return answer
