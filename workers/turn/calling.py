"""One model call of a turn, whoever answers it: route → reserve → wait? → call → settle; the next model when one fails.

Called by `TurnContext`. All of it is one attempt. A model that fails before any of its text was shown is left for the
next candidate at once, with a reservation and a ledger row of its own; after that the attempt has failed, and the retry
policy, the only one there is, decides. What our request is to blame for fails everywhere, so nobody else is asked.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from agents.api import ChatModel, Completion, Prompt
from shared.config import Settings
from shared.errors import AccountRejected, AgentError, UpstreamError, UpstreamUnavailable
from shared.ids import uuid7
from shared.telemetry import tracing
from workers import metrics
from workers.context.fit import Fitted, fitted
from workers.ledger import tokens
from workers.ledger.book import Call, LedgerRow, open_call
from workers.ledger.prices import PriceList
from workers.ledger.purse import Blocked, Busy, Down, Held
from workers.routing.line import Lines, Place, draw
from workers.routing.route import Candidate, route
from workers.routing.terms import TOO_LARGE, Terms, best, refused, told_of
from workers.turn.spending import Spending
from workers.turn.work import Work


@dataclass(frozen=True, slots=True)
class Providers:
    """What a worker process may ask: models by provider, on which terms, and the lines before them."""

    models: Mapping[str, ChatModel]
    terms: Terms
    lines: Lines
    timeout_s: float
    """Of one call."""
    context_tokens: int
    """The longest prompt."""

    @classmethod
    def of(cls, settings: Settings, models: Mapping[str, ChatModel]) -> "Providers":
        return cls(models, Terms(settings), Lines(), settings.model_timeout_s, settings.context_tokens)


class Calling:
    """Of one attempt. `say` shows text to the turn's readers."""

    def __init__(
        self,
        work: Work,
        providers: Providers,
        prices: PriceList,
        spending: Spending,
        say: Callable[[str], None],
        *,
        kind: str = "chat",
        patient: bool = True,
    ) -> None:
        """`kind` is the ledger's. Not `patient`: a busy provider is a failure, and no turn waits behind this call."""
        self._work, self._prices, self._spending, self._say = work, prices, spending, say
        self._models, self._terms, self._lines = providers.models, providers.terms, providers.lines
        self._kind, self._patient = kind, patient
        self._timeout_s, self._context_tokens = providers.timeout_s, providers.context_tokens

    async def ask(self, prompt: Prompt) -> Completion:
        """Raises UpstreamError when every candidate failed or is down, BudgetExhausted when none may be paid."""
        agent = self._work.agent
        if agent is None:
            raise AgentError("no such agent", code="unknown_agent")
        fits = _Fits(prompt, self._context_tokens)
        candidates = route(agent, fits.of("").prompt, self._models, self._prices, datetime.now(UTC))
        failures: list[UpstreamError] = []
        while candidates:
            call = await self._reserved(fits, candidates, failures)
            try:
                return await self._made(call, self._shown(fits, call.row.model))
            except UpstreamError as error:
                if call.seen or not passes_on(error):
                    raise
                failures.append(error)
            failed = (call.row.provider, call.row.model)
            candidates = tuple(each for each in candidates if (each.provider, each.model) != failed)
            if candidates:
                metrics.count_fallback(*failed)
        raise best(failures)

    def _shown(self, fits: "_Fits", model: str) -> Prompt:
        """The prompt as this model is sent it; the turn notes what was left out."""
        fit = fits.of(model)
        self._work.note_left_out(fit.left_out, cut=fit.cut)
        return fit.prompt

    async def _reserved(
        self, fits: "_Fits", candidates: Sequence[Candidate], failures: Sequence[UpstreamError]
    ) -> Call:
        """The call that is paid for and has its place at its provider; while a provider is busy it waits in line."""
        async with self._lines.place(candidates[0].provider) as place:
            while True:
                calls = self._open(fits, candidates)
                answer = await self._spending.reserve(
                    calls,
                    cheap=[each.cheap for each in candidates],
                    terms=[self._terms_of(call) for call in calls],
                )
                match answer:
                    case Held(index, past):
                        for passed in candidates[:index] if not past else ():
                            metrics.count_refusal(passed.provider, passed.model, "passed_over")
                        return calls[index]
                    case Blocked():
                        raise best(failures) if failures else self._spending.exhausted(answer)
                    case Busy() | Down():
                        await self._wait(answer, candidates[answer.index], place, failures)
                    case _:
                        assert_never(answer)

    async def _wait(
        self, answer: Busy | Down, candidate: Candidate, place: Place, failures: Sequence[UpstreamError]
    ) -> None:
        """Raises when it is not worth waiting: all that may be asked are down for longer than patience lasts."""
        metrics.count_refusal(candidate.provider, candidate.model, answer.reason)
        wait_s = answer.retry_after_ms / 1000
        if not self._patient:
            raise refused(candidate.provider, candidate.model, answer.reason, wait_s)
        if isinstance(answer, Busy):
            await place.wait(candidate.provider, wait_s)
            return
        if failures:
            raise best(failures)
        if answer.reason == TOO_LARGE or wait_s > self._terms.patience_s:
            raise refused(candidate.provider, candidate.model, answer.reason, wait_s)
        await asyncio.sleep(wait_s * draw(1.0, 1.25))

    def _open(self, fits: "_Fits", candidates: Sequence[Candidate]) -> list[Call]:
        """Ways to make one call; made anew for every question, as a wait is no part of the call."""
        work, call_id = self._work, uuid7()
        return [
            open_call(
                work.payload,
                work.user_id,
                work.job,
                prompt=fits.of(candidate.model).prompt,
                provider=candidate.provider,
                model=candidate.model,
                prices=self._prices,
                call_id=call_id,
            ).of_kind(self._kind)
            for candidate in candidates
        ]

    def _terms_of(self, call: Call) -> str:
        row = call.row
        return self._terms.of(row.provider, input_tokens=row.input_tokens, output_tokens=row.max_tokens)

    async def _made(self, call: Call, prompt: Prompt) -> Completion:
        """The answer; whatever becomes of the call, it is settled."""
        provider, name = call.row.provider, call.row.model
        try:
            with (
                metrics.calling(provider),
                tracing.span("gen_ai.chat", f"chat {name}", **{"gen_ai.system": provider}) as span,
            ):
                completion = await self._streamed(call, self._models[provider], prompt)
                span.tell(**usage_of(completion))
        except UpstreamError as error:
            self._settle(call, call.failed(error), told_of(error))
            raise
        except BaseException:
            self._settle(call, call.aborted(), "")
            raise
        self._settle(call, call.settled(completion), told_of(completion))
        return completion

    def _settle(self, call: Call, row: LedgerRow, told: str) -> None:
        settling = self._spending.settle(row, told)
        settling.add_done_callback(lambda _: self._lines.freed(call.row.provider))

    async def _streamed(self, call: Call, model: ChatModel, prompt: Prompt) -> Completion:
        completion: Completion | None = None
        user = f"{self._work.payload.tenant}/{self._work.user_id}" if self._work.user_id else None
        stream = model.stream(prompt, model=call.row.model, timeout_s=self._timeout_s, user=user)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    call.saw(piece)
                    self._say(piece)
                else:
                    completion = piece
        if completion is None:
            raise UpstreamUnavailable("the stream ended without its end", provider=model.provider)
        return completion


class _Fits:
    """One prompt, packed for each model it may be sent to."""

    def __init__(self, prompt: Prompt, limit: int) -> None:
        self._prompt, self._limit = prompt, limit
        self._made: dict[str, Fitted] = {}

    def of(self, model: str) -> Fitted:
        name = tokens.counts_like(model)
        if name not in self._made:
            self._made[name] = fitted(self._prompt, model, self._limit)
        return self._made[name]


def passes_on(error: UpstreamError) -> bool:
    """Whether another provider may well answer what this one did not."""
    return error.retryable or isinstance(error, AccountRejected)


def usage_of(completion: Completion) -> dict[str, object]:
    """For the trace, by OpenTelemetry's names."""
    return {
        "gen_ai.response.model": completion.model,
        "gen_ai.usage.input_tokens": completion.usage.input_tokens,
        "gen_ai.usage.output_tokens": completion.usage.output_tokens,
    }
