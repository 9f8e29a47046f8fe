"""One of all who ask at once asks a model, in one process and between processes, whatever becomes of him."""

import asyncio

import pytest
from redis.asyncio import Redis

from agents.api import Completion
from shared import keys
from shared.errors import AgentError, UpstreamUnavailable
from shared.jobs import Usage
from shared.redis import Commands
from tests.cache.conftest import LEASE_S, Caches, a_question
from tests.conftest import Eventually
from workers.cache.flight import Paid
from workers.cache.store import Answer


class Model:
    """Counts who asks; answers, or fails, when told to."""

    def __init__(self, outcome: Paid | Exception | None = None) -> None:
        self.asked = self.at_once = self.most_at_once = 0
        self.may_answer = asyncio.Event()
        self.outcome: Paid | Exception = outcome or said("Yes.")

    async def ask(self) -> Paid:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.may_answer.wait()
        finally:
            self.at_once -= 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def said(text: str, finish: str = "stop") -> Paid:
    completion = Completion(text, finish, Usage(9, 3), "openai", "small-2026")  # type: ignore[arg-type]  # one of Finish
    return Paid(completion, "small", 77)


def text_of(answered: Answer | Completion) -> str:
    return answered.text


async def waiting(commands: Commands, redis: Redis) -> bool:
    """Whether a flight is under way."""
    return bool(await redis.exists(keys.flight("acme", "q")))


async def test_fifty_in_one_process_ask_once_and_cost_redis_one_look(
    caches: Caches, commands: Commands, eventually: Eventually
) -> None:
    cache, model = caches(), Model()
    askers = [asyncio.ensure_future(cache.answered(a_question(), model.ask)) for _ in range(50)]
    await eventually(lambda: model.asked == 1)
    assert commands.round_trips <= 2, "one look; once more with its source, which the server did not know"
    model.may_answer.set()
    answers = await asyncio.gather(*askers)
    assert model.asked == 1
    assert [text_of(answer) for answer in answers] == ["Yes."] * 50
    assert [type(answer) for answer in answers].count(Completion) == 1, "only one has paid"


async def test_those_of_another_process_wait_and_are_given_it(
    caches: Caches, commands: Commands, redis: Redis, eventually: Eventually
) -> None:
    here, there, model = caches(), caches(), Model()
    first = asyncio.ensure_future(here.answered(a_question(), model.ask))
    await eventually(lambda: waiting(commands, redis))
    others = [asyncio.ensure_future(there.answered(a_question(), model.ask)) for _ in range(10)]
    before = commands.round_trips
    await eventually(lambda: commands.round_trips >= before + 4)
    assert not any(other.done() for other in others)
    model.may_answer.set()
    answers = await asyncio.gather(*others)
    assert isinstance(await first, Completion)
    assert {text_of(answer) for answer in answers} == {"Yes."}
    assert all(isinstance(answer, Answer) and answer.cost_nano_usd == 77 for answer in answers)
    assert model.asked == 1


async def test_a_call_longer_than_the_lease_is_still_made_once(
    caches: Caches, commands: Commands, redis: Redis, eventually: Eventually
) -> None:
    here, there, model = caches(), caches(), Model()
    tasks = [asyncio.ensure_future(cache.answered(a_question(), model.ask)) for cache in (here, there)]
    ends = asyncio.get_running_loop().time() + 1.5 * LEASE_S
    await eventually(lambda: asyncio.get_running_loop().time() > ends)
    assert model.asked == 1
    model.may_answer.set()
    await asyncio.gather(*tasks)
    assert model.asked == 1
    assert not await redis.exists(keys.flight("acme", "q"))


async def test_when_the_first_fails_one_other_asks_and_the_rest_go_on_waiting(
    caches: Caches, eventually: Eventually
) -> None:
    here, there = caches(), caches()
    failing, good = Model(UpstreamUnavailable("down")), Model()
    first = asyncio.ensure_future(here.answered(a_question(), failing.ask))
    await eventually(lambda: failing.asked == 1)
    others = [asyncio.ensure_future(cache.answered(a_question(), good.ask)) for cache in (here, there) * 10]
    failing.may_answer.set()
    with pytest.raises(UpstreamUnavailable):
        await first
    await eventually(lambda: good.asked == 1)
    good.may_answer.set()
    assert {text_of(answer) for answer in await asyncio.gather(*others)} == {"Yes."}
    assert (good.asked, good.most_at_once) == (1, 1)


async def test_a_provider_that_is_down_is_asked_by_one_at_a_time(caches: Caches, eventually: Eventually) -> None:
    model = Model(UpstreamUnavailable("down"))
    model.may_answer.set()
    cache = caches()
    outcomes = await asyncio.gather(
        *(cache.answered(a_question(), model.ask) for _ in range(20)), return_exceptions=True
    )
    assert all(isinstance(outcome, UpstreamUnavailable) for outcome in outcomes)
    assert (model.asked, model.most_at_once) == (20, 1)


@pytest.mark.parametrize(
    "outcome", [said("Half an ans", "length"), said("", "stop"), AgentError("refused", code="refusal")], ids=str
)
async def test_what_is_not_to_be_shared_holds_nobody_up(
    caches: Caches, redis: Redis, eventually: Eventually, outcome: Paid | Exception
) -> None:
    first, others = Model(outcome), Model(outcome)
    here, there = caches(), caches()
    leading = asyncio.ensure_future(here.answered(a_question(), first.ask))
    await eventually(lambda: first.asked == 1)
    following = [asyncio.ensure_future(cache.answered(a_question(), others.ask)) for cache in (here, there) * 5]
    first.may_answer.set()
    await eventually(lambda: others.at_once == 10)
    others.may_answer.set()
    await asyncio.gather(leading, *following, return_exceptions=True)
    assert await redis.keys("sb:cache:*") == []


@pytest.mark.parametrize("same_process", [True, False])
async def test_when_the_first_is_cancelled_another_asks(
    caches: Caches, eventually: Eventually, *, same_process: bool
) -> None:
    here, model = caches(), Model()
    first = asyncio.ensure_future(here.answered(a_question(), model.ask))
    await eventually(lambda: model.asked == 1)
    other = asyncio.ensure_future((here if same_process else caches()).answered(a_question(), model.ask))
    await asyncio.sleep(0)
    first.cancel()
    await eventually(lambda: model.asked == 2)
    model.may_answer.set()
    assert isinstance(await other, Completion)


async def test_who_waits_can_leave_without_disturbing_anybody(caches: Caches, eventually: Eventually) -> None:
    here, there, model = caches(), caches(), Model()
    askers = [asyncio.ensure_future(here.answered(a_question(), model.ask)) for _ in range(3)]
    await eventually(lambda: model.asked == 1)
    far = [asyncio.ensure_future(there.answered(a_question(), model.ask)) for _ in range(3)]
    await asyncio.sleep(0)
    askers[1].cancel()
    far[0].cancel()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await there.answered(a_question(), model.ask)
    model.may_answer.set()
    done = await asyncio.gather(*askers, *far, return_exceptions=True)
    assert [type(outcome) for outcome in done].count(asyncio.CancelledError) == 2
    assert [text_of(outcome) for outcome in done if not isinstance(outcome, BaseException)] == ["Yes."] * 4
    assert model.asked == 1


async def test_a_flight_of_a_process_that_is_gone_is_taken_over(
    caches: Caches, redis: Redis, eventually: Eventually
) -> None:
    model = Model()
    model.may_answer.set()
    await redis.set(keys.flight("acme", "q"), "gone.0", px=int(LEASE_S * 1000))
    assert isinstance(await caches().answered(a_question(), model.ask), Completion)


async def test_a_question_costs_one_round_trip_and_its_answer_another(
    caches: Caches, commands: Commands, redis: Redis, eventually: Eventually
) -> None:
    cache, model = caches(), Model()
    model.may_answer.set()
    await cache.answered(a_question("warm"), model.ask)
    await eventually(lambda: redis.exists(keys.cached("acme", "warm")))
    before = commands.round_trips
    await cache.answered(a_question(), model.ask)
    await eventually(lambda: redis.exists(keys.cached("acme", "q")))
    assert commands.round_trips == before + 2
    await cache.answered(a_question(), model.ask)
    assert commands.round_trips == before + 3


async def test_idle_it_does_nothing(caches: Caches, commands: Commands, eventually: Eventually) -> None:
    cache, model = caches(), Model()
    model.may_answer.set()
    await cache.answered(a_question("warm"), model.ask)
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    before = commands.round_trips
    await cache.answered(a_question(), model.ask)
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    assert commands.round_trips == before + 2


async def test_what_was_answered_stays_within_the_tenant(caches: Caches) -> None:
    cache, model = caches(), Model()
    model.may_answer.set()
    await cache.answered(a_question(tenant="acme"), model.ask)
    await cache.answered(a_question(tenant="other"), model.ask)
    assert model.asked == 2
