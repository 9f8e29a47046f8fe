"""The answer stage: what an agent is given (`Context`), and what becomes of its answer or its failure.

`complete` is the only way to a model: route → open the books → call, streaming → settle. A model call is never made
without its row in Redis, and never by an attempt that has lost its job.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import msgspec

from agents.api import ChatModel, Completion, Message, Prompt, Turn
from shared.errors import AgentError, LeaseLost, SwitchboardError, Unavailable, UpstreamError, UpstreamUnavailable
from shared.telemetry import tracing
from workers import metrics
from workers.cache.flight import Cache, Paid
from workers.cache.question import Question
from workers.ledger.book import Call, LedgerRow, open_call
from workers.ledger.prices import PriceList
from workers.models.catalog import choose
from workers.queue.scripts import Claimed
from workers.turn.kept import hit_row, may_be_shown_again, question_of
from workers.turn.retry import RetryPolicy
from workers.turn.store import persist
from workers.turn.work import Done, Failed, Outcome, Retry, Work, job_error, now_us, traceback_of

REASONING_HEADROOM_TOKENS = 4_000
"""Added once when a reply came back empty because reasoning used up its bound."""


class Desk(Protocol):
    """What the worker offers a running turn: a place for open calls, a way to its readers, answers there are."""

    @property
    def cache(self) -> Cache | None: ...

    async def book(self, job: Claimed, rows: Mapping[str, bytes]) -> bool: ...

    def say(self, job: Claimed, text: str) -> None: ...


class TurnContext:
    """`agents.api.Context` for one attempt."""

    def __init__(
        self,
        work: Work,
        *,
        models: Mapping[str, ChatModel],
        prices: PriceList,
        desk: Desk,
        max_tokens: int,
        model_timeout_s: float,
        give_up: Callable[[], bool],
    ) -> None:
        self._work = work
        self._models = models
        self._prices = prices
        self._desk = desk
        self._model_timeout_s = model_timeout_s
        self._give_up = give_up
        self._cache = desk.cache
        self._asked: Question | None = None
        """What was asked last, where others may ask the same."""
        self.max_tokens = max_tokens
        self._settling: set[asyncio.Task[None]] = set()

    @property
    def history(self) -> tuple[Message, ...]:
        return self._work.history

    async def complete(self, prompt: Prompt) -> Completion:
        began = time.monotonic()
        self._asked = question = question_of(self._work, prompt, self._cache)
        if self._cache is None or question is None or not may_be_shown_again(self._work):
            return await self._complete(prompt)
        answered = await self._cache.answered(question, lambda: self._paid(prompt))
        if isinstance(answered, Completion):
            return answered
        row = hit_row(self._work, answered, waited_s=time.monotonic() - began)
        self._work.rows[row.call_id] = row
        metrics.count_saved(row)
        self._desk.say(self._work.job, answered.text)
        return answered.completion()

    async def stale(self) -> Completion | None:
        """A kept answer to what was asked last, however old; None where there is none or it may not be shown."""
        if self._cache is None or self._asked is None:
            return None
        kept = await self._cache.stale(self._asked)
        return None if kept is None else kept.completion()

    async def _paid(self, prompt: Prompt) -> Paid:
        before = set(self._work.rows)
        completion = await self._complete(prompt)
        rows = [row for call_id, row in self._work.rows.items() if call_id not in before and row.status == "ok"]
        return Paid(completion, rows[-1].model, sum(row.cost_nano_usd for row in rows))

    async def _complete(self, prompt: Prompt) -> Completion:
        completion = await self._call(prompt)
        if completion.finish == "length" and not completion.text.strip():
            completion = await self._call(replace(prompt, max_tokens=prompt.max_tokens + REASONING_HEADROOM_TOKENS))
        if completion.finish in ("refusal", "content_filter"):
            raise AgentError("the model refused to answer", code=completion.finish)
        if not completion.text.strip():
            if completion.finish == "length":
                raise AgentError("the model used up its tokens without answering", code="empty_reply")
            raise UpstreamUnavailable("the model answered nothing", provider=completion.provider)
        return completion

    async def _call(self, prompt: Prompt) -> Completion:
        work = self._work
        if work.agent is None:
            raise AgentError("no such agent", code="unknown_agent")
        model, name = choose(work.agent.models, self._models)
        call = open_call(
            work.payload,
            work.user_id,
            run=work.job.run,
            attempt=work.job.attempt,
            prompt=prompt,
            provider=model.provider,
            model=name,
            prices=self._prices,
        )
        await self._reserve(call)
        try:
            with tracing.span("gen_ai.chat", f"chat {name}", **{"gen_ai.system": model.provider}) as span:
                completion = await self._stream(call, model, prompt)
                span.tell(**usage_of(completion))
        except UpstreamError as error:
            self._settle(call.failed(error))
            raise
        except BaseException:
            self._settle(call.aborted())
            raise
        self._settle(call.settled(completion))
        return completion

    async def _stream(self, call: Call, model: ChatModel, prompt: Prompt) -> Completion:
        completion: Completion | None = None
        user = f"{self._work.payload.tenant}/{self._work.user_id}" if self._work.user_id else None
        stream = model.stream(prompt, model=call.row.model, timeout_s=self._model_timeout_s, user=user)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    call.saw(piece)
                    self._desk.say(self._work.job, piece)
                else:
                    completion = piece
        if completion is None:
            raise UpstreamUnavailable("the stream ended without its end", provider=model.provider)
        return completion

    async def _reserve(self, call: Call) -> None:
        """The row stands in Redis before the call is made; while Redis is away we wait, which is no attempt.

        Raises LeaseLost when the job is no longer ours and Unavailable when waiting has become pointless.
        """
        row = call.row
        rows = {row.call_id: msgspec.json.encode(row)}
        try:
            ours = await persist(lambda: self._desk.book(self._work.job, rows), self._give_up)
        except BaseException:
            self._settle(call.unsent())  # the row may stand there all the same
            raise
        if not ours:
            self._work.job.lost = True
            raise LeaseLost("this attempt is no longer ours")
        self._work.rows[row.call_id] = row

    def _settle(self, row: LedgerRow) -> None:
        """The exact row replaces the open one, in memory now and in Redis while the turn goes on."""
        self._work.rows[row.call_id] = row
        metrics.count_call(row, self._work.agent.id if self._work.agent else metrics.UNKNOWN)
        task = asyncio.ensure_future(self._settle_in_redis(row))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle_in_redis(self, row: LedgerRow) -> None:
        try:
            await self._desk.book(self._work.job, {row.call_id: msgspec.json.encode(row)})
        except Unavailable:
            return  # the commit carries the exact row; only a crash before it would book the estimate

    async def settled(self) -> None:
        """Returns when Redis has every settled row, or cannot be reached."""
        while self._settling:
            await asyncio.wait(list(self._settling))


def usage_of(completion: Completion) -> dict[str, object]:
    """For the trace, by OpenTelemetry's names."""
    return {
        "gen_ai.response.model": completion.model,
        "gen_ai.usage.input_tokens": completion.usage.input_tokens,
        "gen_ai.usage.output_tokens": completion.usage.output_tokens,
    }


async def answer(work: Work, context: TurnContext, policy: RetryPolicy) -> Outcome:
    """Lets the agent answer; every way this can end, as a value. A cancelled attempt raises CancelledError."""
    if work.agent is None:
        error = AgentError(f"there is no agent {work.payload.agent!r}", code="unknown_agent")
        return Failed("dead", job_error(error))
    turn = Turn(
        text=work.question,
        conversation_id=work.payload.conversation_id,
        user_id=work.user_id,
        tenant=work.payload.tenant,
        metadata=work.payload.metadata,
        attempt=work.job.attempt,
    )
    try:
        async with asyncio.timeout(work.agent.timeout_s):
            return Done(await work.agent.answer(turn, context))
    except (LeaseLost, Unavailable):  # not ours to answer, or not here
        raise asyncio.CancelledError from None
    except TimeoutError:
        return _judge(UpstreamUnavailable(f"no answer within {work.agent.timeout_s:g} s"), work, policy)
    except Exception as error:  # noqa: BLE001 - an agent is somebody else's code; what it raises is judged, not hidden
        return _judge(error, work, policy)


def _judge(error: Exception, work: Work, policy: RetryPolicy) -> Outcome:
    running_s = (now_us() - work.job.started_us) / 1_000_000
    delay_s = policy.delay_s(error, attempt=work.job.attempt, running_s=running_s)
    if delay_s is not None:
        return Retry(delay_s, job_error(error))
    expected = isinstance(error, SwitchboardError)
    return Failed("dead", job_error(error), None if expected else traceback_of(error))
