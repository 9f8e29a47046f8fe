"""What many turns ask of a server at the same moment, asked together: beginning is most of what one statement, or one
script, costs.

Questions of one tick go together. While a statement is under way the next ones gather, for `PATIENCE_S` at most: the
busier the process, the more of them share a statement, and an idle one waits for nobody. A statement for several that
fails says nothing about any one of them, so each is asked again by itself. Called by `workers.turn.store` (Postgres)
and `workers.ledger.purse` (Redis).
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

import structlog

log = structlog.get_logger("turn")
Question = TypeVar("Question")
Answer = TypeVar("Answer")

PATIENCE_S = 0.02
"""A statement that takes longer (a lock, a disk that stalls) holds the next ones up no more."""


class _Asked(NamedTuple, Generic[Question, Answer]):
    question: Question
    key: Hashable
    answer: "asyncio.Future[Answer]"


class Joined(Generic[Question, Answer]):
    """`await joined(question)`. `together` answers several, in their order; `alone` answers one.

    Both must be safe to repeat. At most `most` go together, and no two with one `key`.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        alone: Callable[[Question], Awaitable[Answer]],
        *,
        most: int,
    ) -> None:
        self._together, self._alone, self._most = together, alone, most
        self._waiting: list[_Asked[Question, Answer]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._awaited: asyncio.Task[None] | None = None
        """Under way; what is asked meanwhile goes after it."""
        self._about_to_start = False

    def __call__(self, question: Question, key: Hashable = None) -> "asyncio.Future[Answer]":
        """Raises what `alone` raises."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(question, key, answer))
        self._next()
        return answer

    def _next(self) -> None:
        if self._waiting and self._awaited is None and not self._about_to_start:
            self._about_to_start = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._about_to_start = False
        if batch := self._batch():
            task = self._awaited = asyncio.ensure_future(self._ask(batch))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            overdue = asyncio.get_running_loop().call_later(PATIENCE_S, self._go_on, task)
            task.add_done_callback(lambda _: overdue.cancel())
            task.add_done_callback(self._go_on)

    def _go_on(self, task: "asyncio.Task[None]") -> None:
        """Nobody waits for `task` any more."""
        if self._awaited is task:
            self._awaited = None
            self._next()

    def _batch(self) -> list[_Asked[Question, Answer]]:
        batch: list[_Asked[Question, Answer]] = []
        rest: list[_Asked[Question, Answer]] = []
        keys: set[Hashable] = set()
        for asked in self._waiting:
            if asked.answer.done():  # its caller went away
                continue
            fits = len(batch) < self._most and (asked.key is None or asked.key not in keys)
            (batch if fits else rest).append(asked)
            keys.add(asked.key)
        self._waiting = rest
        return batch

    async def _ask(self, batch: Sequence[_Asked[Question, Answer]]) -> None:
        try:
            if len(batch) == 1:
                await self._ask_alone(batch[0])
                return
            try:
                answers = await self._together([asked.question for asked in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, it may be the fault of one of them
                log.warning("turn.apart", turns=len(batch), fault=type(error).__name__)
                await asyncio.gather(*map(self._ask_alone, batch))
                return
            for asked, answer in zip(batch, answers, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(answer)
        finally:
            for asked in batch:
                asked.answer.cancel()  # those without an answer: we were stopped

    async def _ask_alone(self, asked: _Asked[Question, Answer]) -> None:
        if asked.answer.done():  # its caller went away meanwhile
            return
        try:
            answer = await self._alone(asked.question)
        except Exception as error:  # noqa: BLE001 - its caller's to judge
            if not asked.answer.done():
                asked.answer.set_exception(error)
        else:
            if not asked.answer.done():
                asked.answer.set_result(answer)
