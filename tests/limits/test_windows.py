"""Sliding windows, exact to the µs, on a clock that the test sets: against a model, under overload, all or nothing."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared.ids import uuid7
from shared.rates import Window
from shared.scripts import Idempotency
from tests.limits.clock import SECOND, Clock
from tests.limits.sending import send, window
from tests.queue.harness import Bench

LIMIT = 10


async def overload(bench: Bench, clock: Clock, of: Window, *, step_us: int, steps: int) -> list[int]:
    """When messages got in that came every `step_us`."""
    let_in = []
    for _ in range(steps):
        if (await send(bench.intake, of)).outcome == "accepted":
            let_in.append(clock.now_us)
        await clock.move(step_us)
    return let_in


@pytest.mark.parametrize("factor", [2, 7])
async def test_under_steady_overload_every_window_holds_exactly_the_limit(
    bench: Bench, clock: Clock, factor: int
) -> None:
    """Whichever message a window begins with. Counting the refused ones as well would let in 10, 0, 0, 0 …"""
    length_us = 60 * SECOND
    step_us = length_us // (LIMIT * factor)
    let_in = await overload(bench, clock, window(LIMIT), step_us=step_us, steps=LIMIT * factor * 5)
    whole = [start for start in let_in if start + length_us <= clock.now_us]
    assert {sum(start <= at < start + length_us for at in let_in) for start in whole} == {LIMIT}
    assert len(let_in) == 5 * LIMIT


async def test_a_place_is_free_at_the_microsecond_that_was_told_and_not_before(bench: Bench, clock: Clock) -> None:
    await overload(bench, clock, window(3), step_us=7, steps=3)
    refused = await send(bench.intake, window(3))
    (standing,) = refused.windows
    assert (refused.outcome, standing.remaining, standing.left_us) == ("limited", 0, 60 * SECOND - 21)
    await clock.move(standing.left_us - 1)
    assert (await send(bench.intake, window(3))).outcome == "limited"
    await clock.move(1)
    assert (await send(bench.intake, window(3))).outcome == "accepted"
    assert (await send(bench.intake, window(3))).windows[0].left_us == 7


async def test_a_refused_message_is_counted_in_no_window(bench: Bench, clock: Clock, redis: Redis) -> None:
    user, tenant = window(5), window(2, level="tenant", name="acme")
    for _ in range(2):
        await send(bench.intake, user, tenant)
    for _ in range(20):
        refused = await send(bench.intake, user, tenant)
        assert (refused.outcome, refused.refused_by) == ("limited", refused.windows[1])
    assert [standing.remaining for standing in refused.windows] == [3, 0]
    assert await redis.llen(user.key) == await redis.llen(tenant.key) == 2
    assert await redis.keys(f"arq:job:{refused.job_id}") == []


async def test_the_window_that_keeps_the_message_out_longest_is_named(bench: Bench, clock: Clock) -> None:
    minute, hour = window(1), window(1, level="tier", length_s=3_600)
    await send(bench.intake, minute, hour)
    refused = await send(bench.intake, minute, hour)
    assert refused.refused_by == refused.windows[1]
    await clock.move(refused.windows[1].left_us)
    assert (await send(bench.intake, minute, hour)).outcome == "accepted"


async def test_the_same_call_again_and_a_repeated_request_are_counted_once(bench: Bench, clock: Clock) -> None:
    one, repeat, job_id = window(1), Idempotency("key", "k", "body"), uuid7()
    first = await send(bench.intake, one, job_id=job_id, repeat=repeat)
    again = await send(bench.intake, one, job_id=job_id, repeat=repeat)
    repeated = await send(bench.intake, one, repeat=repeat)
    other = await send(bench.intake, one, repeat=Idempotency("key", "k", "another body"))
    assert [each.outcome for each in (first, again, repeated, other)] == [
        "accepted",
        "accepted",
        "replayed",
        "mismatch",
    ]
    assert {each.windows[0].remaining for each in (first, again, repeated, other)} == {0}
    assert (await send(bench.intake, one)).outcome == "limited"


@pytest.mark.parametrize("limit", [0, -3])
async def test_a_window_without_room_for_anybody_refuses_all(bench: Bench, clock: Clock, limit: int) -> None:
    refused = await send(bench.intake, window(limit))
    assert (refused.outcome, refused.windows[0].remaining, refused.windows[0].left_s) == ("limited", 0, 60)


async def test_an_absurd_limit_is_no_limit(bench: Bench, clock: Clock) -> None:
    assert [(await send(bench.intake, window(10**30))).outcome for _ in range(3)] == ["accepted"] * 3


async def test_a_lower_limit_holds_at_once_and_tells_when_there_is_room(bench: Bench, clock: Clock) -> None:
    await overload(bench, clock, window(10), step_us=SECOND, steps=10)
    refused = await send(bench.intake, window(4))
    assert refused.windows[0].left_us == 56 * SECOND  # the seventh of ten, which came at the sixth second
    await clock.move(refused.windows[0].left_us)
    assert (await send(bench.intake, window(4))).outcome == "accepted"
    assert (await send(bench.intake, window(4))).outcome == "limited"


async def test_a_window_is_no_larger_than_its_limit_and_gone_when_it_is_over(
    bench: Bench, clock: Clock, redis: Redis
) -> None:
    large = window(200)
    await overload(bench, clock, large, step_us=SECOND // 10, steps=1_000)
    assert await redis.llen(large.key) == 200
    assert await redis.memory_usage(large.key) < 200 * 12 + 200
    await clock.move(2 * 60 * SECOND)
    assert await redis.keys("sb:rate:*") == []


async def test_on_the_servers_own_clock_every_window_has_a_time_to_live(bench: Bench, redis: Redis) -> None:
    for _ in range(3):
        await send(bench.intake, window(2), window(9, level="tier", length_s=3_600))
    assert 60_000 < await redis.pttl(window(2).key) <= 120_000
    assert 3_600_000 < await redis.pttl(window(9, level="tier").key) <= 7_200_000


async def test_a_clock_that_goes_back_lets_nobody_in_early_and_keeps_nobody_out_for_long(
    bench: Bench, clock: Clock
) -> None:
    for back_s in (1, 30, 86_400):
        mine = window(LIMIT, name=f"back-{back_s}")
        await overload(bench, clock, mine, step_us=SECOND, steps=LIMIT)
        await clock.move(-back_s * SECOND)
        went_back_us = clock.now_us
        let_in = await overload(bench, clock, mine, step_us=SECOND, steps=121)
        assert let_in[0] - went_back_us <= 60 * SECOND, "nobody waits for longer than one window"
        assert let_in[0] - went_back_us >= 50 * SECOND, "those who came before are still counted"
        for start in let_in:
            assert sum(start <= at < start + 60 * SECOND for at in let_in) <= LIMIT


async def test_a_clock_that_goes_back_with_ten_thousand_in_the_window(bench: Bench, clock: Clock, redis: Redis) -> None:
    crowd = window(10_000, level="global")
    await redis.rpush(crowd.key, *(clock.now_us - 10_000 + n for n in range(10_000)))
    await clock.move(-5_000)
    refused = await send(bench.intake, crowd)
    assert (refused.outcome, refused.windows[0].left_us) == ("limited", 60 * SECOND - 5_000)
    assert await redis.llen(crowd.key) == 10_000
    assert await redis.lindex(crowd.key, -1) == str(clock.now_us).encode()
    await clock.move(60 * SECOND - 2_500)
    assert (await send(bench.intake, crowd)).windows[0].remaining == 2_500  # of the 2,501 who came until then


@dataclass
class Model:
    """What a window is, in the plainest way: the moments of those who were let in."""

    of: Window
    moments: list[int] = field(default_factory=list)

    def look(self, now_us: int) -> tuple[int, int]:
        """Room, and µs until there is more."""
        length_us, limit = self.of.length_s * SECOND, self.of.limit
        self.moments = sorted(min(at, now_us) for at in self.moments if at > now_us - length_us)
        room = max(limit - len(self.moments), 0)
        if not self.moments:
            return room, length_us
        return room, self.moments[max(len(self.moments) - max(limit, 1), 0)] + length_us - now_us


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 400_000, SECOND, 3 * SECOND, 10 * SECOND, 25 * SECOND, -1, -SECOND, -40 * SECOND]),
        st.integers(0, 2),  # whose message
        st.sampled_from([0, 0, 0, 1, -2]),  # what is added to the limits
    ),
    min_size=10,
    max_size=80,
)
_examples = itertools.count()


@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_windows_are_what_the_model_says_whoever_sends_and_whatever_the_clock_does(
    bench: Bench, clock: Clock, steps: list[tuple[int, int, int]]
) -> None:
    example = next(_examples)
    models: dict[str, Model] = {}
    for move_us, user, more in steps:
        for key in await clock.move(move_us):
            if model := models.pop(key, None):
                assert model.look(clock.now_us) == (model.of.limit, model.of.length_s * SECOND), "it was not over yet"
        windows = (
            window(3 + more, name=f"{example}-{user}", length_s=10),
            window(6 + more, level="tier", name=f"{example}-{user}", length_s=40),
            window(5 + more, level="tenant", name=f"{example}", length_s=10),
        )
        asked = [models.setdefault(each.key, Model(each)) for each in windows]
        for model, each in zip(asked, windows, strict=True):
            model.of = each
        expected = [model.look(clock.now_us) for model in asked]
        admission = await send(bench.intake, *windows)
        if all(room > 0 for room, _ in expected):
            assert admission.outcome == "accepted", expected
            for model in asked:
                model.moments.append(clock.now_us)
            expected = [model.look(clock.now_us) for model in asked]
        else:
            assert admission.outcome == "limited", expected
        assert [(each.remaining, each.left_us) for each in admission.windows] == expected
