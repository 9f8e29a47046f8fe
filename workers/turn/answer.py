"""The answer stage: what an agent is given (`Context`), and what becomes of its answer or its failure.

`complete` is the only way to a model (`calling.py`): a call is never made without its row and its hold in Redis, and
never by an attempt that has lost its job.
"""

import asyncio
import time
from dataclasses import replace
from typing import Protocol

from agents.api import Completion, Message, Prompt, Remembered, Reply, Turn
from shared.errors import AgentError, LeaseLost, SwitchboardError, Unavailable, UpstreamUnavailable
from shared.wire import TurnPayload
from workers import metrics
from workers.cache.flight import Cache, Paid
from workers.cache.question import Question
from workers.ledger.prices import PriceList
from workers.queue.scripts import Claimed
from workers.turn.calling import Calling, Providers
from workers.turn.degrade import degraded
from workers.turn.kept import hit_row, may_be_shown_again, question_of
from workers.turn.recollect import Embedding
from workers.turn.retry import RetryPolicy
from workers.turn.spending import Spending
from workers.turn.work import Done, Failed, Outcome, Retry, Work, job_error, now_us, traceback_of

REASONING_HEADROOM_TOKENS = 4_000
"""Added once when a reply came back empty because reasoning used up its bound."""


_AFTER_GREETING = "\n\n"


class Desk(Protocol):
    """What the worker offers a running turn: a way to its readers, and answers there are."""

    @property
    def cache(self) -> Cache | None: ...

    @property
    def embedding(self) -> Embedding | None: ...

    def say(self, job: Claimed, text: str) -> None: ...

    async def take_back(self, job: Claimed) -> None: ...

    def begun(self, payload: TurnPayload) -> None: ...


class TurnContext:
    """`agents.api.Context` for one attempt."""

    def __init__(
        self, work: Work, *, providers: Providers, prices: PriceList, spending: Spending, desk: Desk, max_tokens: int
    ) -> None:
        self._work = work
        self._desk = desk
        self._calling = Calling(work, providers, prices, spending, self._say)
        self._shown = False
        self._cache = desk.cache
        self._asked: Question | None = None
        """What was asked last, where others may ask the same."""
        self.max_tokens = max_tokens

    @property
    def history(self) -> tuple[Message, ...]:
        return self._work.history

    @property
    def remembered(self) -> Remembered:
        return self._work.remembered

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
        self._say(answered.text)
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
        completion = await self._calling.ask(prompt)
        if completion.finish == "length" and not completion.text.strip() and not self._work.bounded:
            longer = replace(prompt, max_tokens=prompt.max_tokens + REASONING_HEADROOM_TOKENS)
            completion = await self._calling.ask(longer)
        if completion.finish in ("refusal", "content_filter"):
            raise AgentError("the model refused to answer", code=completion.finish)
        if not completion.text.strip():
            if completion.finish == "length":
                raise AgentError("the model used up its tokens without answering", code="empty_reply")
            raise UpstreamUnavailable("the model answered nothing", provider=completion.provider)
        return completion

    async def show_instead(self, text: str) -> None:
        """To readers, in place of whatever this attempt has shown them so far."""
        if self._shown:
            await self._desk.take_back(self._work.job)
            self._shown = False
        self._say(text)

    def _say(self, text: str) -> None:
        if not self._shown and self._work.greeting:
            self._desk.say(self._work.job, self._work.greeting + _AFTER_GREETING)
        self._shown = True
        self._desk.say(self._work.job, text)


async def answer(work: Work, context: TurnContext, policy: RetryPolicy, degraded_reply: str) -> Outcome:
    """Lets the agent answer; every way this can end, as a value. A cancelled attempt raises CancelledError.

    `degraded_reply` is the deployment's.
    """
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
    fault: Exception
    try:
        async with asyncio.timeout(work.agent.timeout_s):
            return Done(_greeted(work, await work.agent.answer(turn, context)))
    except (LeaseLost, Unavailable):  # not ours to answer, or not here
        raise asyncio.CancelledError from None
    except TimeoutError:
        fault = UpstreamUnavailable(f"no answer within {work.agent.timeout_s:g} s")
    except Exception as error:  # noqa: BLE001 - an agent is somebody else's code; what it raises is judged, not hidden
        fault = error
    outcome = _judge(fault, work, policy)
    if isinstance(outcome, Failed) and (instead := await degraded(fault, work, context, degraded_reply)):
        await context.show_instead(instead.reply.text)
        return replace(instead, reply=_greeted(work, instead.reply))
    return outcome


def _greeted(work: Work, reply: Reply) -> Reply:
    return replace(reply, text=work.greeting + _AFTER_GREETING + reply.text) if work.greeting else reply


def _judge(error: Exception, work: Work, policy: RetryPolicy) -> Retry | Failed:
    running_s = (now_us() - work.job.started_us) / 1_000_000
    delay_s = policy.delay_s(error, attempt=work.job.attempt, running_s=running_s)
    if delay_s is not None:
        return Retry(delay_s, job_error(error))
    expected = isinstance(error, SwitchboardError)
    return Failed("dead", job_error(error), None if expected else traceback_of(error))
