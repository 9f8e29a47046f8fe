"""Caps of a provider across all workers: calls at once, calls and tokens a minute, and what it says it has left."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from tests.conftest import Eventually
from tests.routing.provider import FAIL, NEUTRAL, NONE, OK, Provider


async def test_no_more_calls_at_once_than_slots_and_an_end_frees_one(redis: Redis) -> None:
    provider = Provider(redis, slots=2)
    await provider.lease("w1")
    first, second, third = [await provider.ask() for _ in range(3)]
    assert (first.kind, second.kind) == ("held", "held")
    assert (third.kind, third.why) == ("busy", "slots")
    await provider.give(first)
    assert (await provider.ask()).kind == "held"
    assert (await provider.ask()).kind == "busy"


async def test_the_same_call_asked_for_twice_takes_one_slot(redis: Redis) -> None:
    provider = Provider(redis, slots=2)
    await provider.lease("w1")
    for _ in range(3):  # its answer was lost
        assert (await provider.ask(call_id="same")).kind == "held"
    assert (await provider.ask()).kind == "held"
    assert (await provider.ask()).kind == "busy"


async def test_slots_of_a_worker_whose_lease_is_over_are_free_also_another_queues(
    redis: Redis, eventually: Eventually
) -> None:
    provider = Provider(redis, slots=2)
    await provider.lease("dies", until_ms=provider.now_ms + 5_000)
    await provider.lease("lives")
    held = [await provider.ask(worker="dies") for _ in range(2)]
    provider.now_ms += 4_999
    assert (await provider.ask(worker="lives")).kind == "busy"
    provider.now_ms += 1

    async def freed() -> bool:  # nobody looks more often than every 100 ms of the server's own time
        return (await provider.ask(worker="lives", call_id="x")).kind == "held"

    await eventually(freed)
    assert await redis.hlen("sb:provider:openai:calls") == 1
    await provider.give(held[0])  # a late word of the dead one frees nobody else's
    assert await redis.hlen("sb:provider:openai:calls") == 1


async def test_one_look_for_dead_workers_in_a_tenth_of_a_second(redis: Redis) -> None:
    provider = Provider(redis, slots=1)
    await provider.lease("w1")
    await provider.ask()
    await redis.config_resetstat()
    answers = [await provider.ask() for _ in range(5)]
    assert {answer.why for answer in answers} == {"slots"}
    looks = (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"]
    assert looks <= 2


async def test_tokens_are_reserved_by_the_estimate_and_corrected_by_the_account(redis: Redis) -> None:
    provider = Provider(redis, tpm=1_000)
    first = await provider.ask(900)
    refused = await provider.ask(200)
    assert (refused.kind, refused.why) == ("busy", "tpm")
    await provider.give(first, OK, tokens=100)
    assert (await provider.ask(900)).kind == "held"
    assert (await provider.ask(1)).kind == "busy"


async def test_a_refusal_says_when_there_is_room(redis: Redis) -> None:
    provider = Provider(redis, tpm=1_000)
    for _ in range(4):
        assert (await provider.ask(250)).kind == "held"
        provider.now_ms += 10_000
    refused = await provider.ask(400)  # two of them must leave: the second one came 30 s ago
    assert refused.wait_ms == 31_000
    provider.now_ms += refused.wait_ms - 1
    assert (await provider.ask(400)).kind == "busy"
    provider.now_ms += 1
    assert (await provider.ask(400)).kind == "held"


async def test_a_call_larger_than_the_minute_never_fits(redis: Redis) -> None:
    provider = Provider(redis, tpm=1_000)
    refused = await provider.ask(1_001)
    assert (refused.kind, refused.why) == ("down", "too_large")


async def test_requests_a_minute(redis: Redis) -> None:
    provider = Provider(redis, rpm=3)
    assert [(await provider.ask()).kind for _ in range(4)] == ["held"] * 3 + ["busy"]
    provider.now_ms += 61_000
    assert (await provider.ask()).kind == "held"


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 25_000), st.integers(1, 600), st.integers(0, 600)), min_size=1, max_size=40)
)
def test_no_sixty_seconds_ever_hold_more_than_the_limit(valkey_url: str, steps: list[tuple[int, int, int]]) -> None:
    async def play() -> None:
        async with Redis.from_url(valkey_url) as redis:
            await redis.delete("sb:provider:openai:tpm")
            provider = Provider(redis, tpm=1_000)
            used: list[tuple[int, int]] = []
            refused = 0
            for pause_ms, estimate, actual in steps:
                provider.now_ms += pause_ms
                held = await provider.ask(estimate)
                window = [n for at, n in used if at > provider.now_ms - 60_000]
                if held.kind == "held":
                    used.append((provider.now_ms, min(actual, estimate)))
                    await provider.give(held, OK, tokens=min(actual, estimate))
                    assert sum(window) + estimate <= 1_000
                else:
                    refused += 1
                    kept = [n for at, n in used if at > provider.now_ms - 62_000]
                    assert sum(kept) + estimate > 1_000, "refused although there was room"

    asyncio.run(play())


@pytest.mark.parametrize("jump_ms", [-3_600_000, -30_000, 3_600_000, 400 * 86_400_000])
async def test_a_clock_that_jumps_locks_out_for_two_minutes_at_most(redis: Redis, jump_ms: int) -> None:
    provider = Provider(redis, tpm=100)
    await provider.call(OK)
    provider.now_ms += jump_ms
    await provider.ask()
    provider.now_ms -= jump_ms
    await provider.ask()
    provider.now_ms += 123_000
    assert (await provider.ask()).kind == "held"


async def test_what_the_provider_says_is_left_binds_all_until_it_is_full_again(redis: Redis) -> None:
    provider = Provider(redis, patience_ms=60_000)
    await provider.call("ok - 0 1 5000")  # one request is left, for 5 s
    assert (await provider.ask(worker="w1")).kind == "held"
    refused = await provider.ask(worker="w2")
    assert (refused.kind, refused.why, refused.wait_ms) == ("busy", "requests", 5_000)
    assert (await provider.ask(model="other")).kind == "held", "it is said of one model"
    provider.now_ms += 5_000
    assert (await provider.ask()).kind == "held"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("ok - 0 - - 99 5000", "tokens"),
        ("ok - 0 - - - - 49 5000", "input"),
        ("ok - 0 - - - - - - 49 5000", "output"),
    ],
)
async def test_less_than_the_call_needs_is_as_good_as_nothing(redis: Redis, told: str, why: str) -> None:
    provider = Provider(redis)
    await provider.call(told)
    refused = await provider.ask(100, output=50)
    assert (refused.kind, refused.why) == ("down", why), "5 s are more than a turn's patience"
    assert (await provider.ask(98, output=49)).kind == "held"
    assert (await provider.ask(98, output=49)).why == why, "the one before needs it"


async def test_an_older_answer_that_ends_later_says_nothing_of_what_is_left(redis: Redis) -> None:
    provider = Provider(redis)
    long = await provider.ask()
    provider.now_ms += 10_000
    await provider.call("ok - 0 0 60000")
    provider.now_ms += 1_000
    await provider.give(long, "ok - 11000 500 30000")  # its head came 11 s ago
    assert (await provider.ask()).why == "requests"


async def test_retry_after_pauses_the_model_for_everybody_and_the_longest_counts(redis: Redis) -> None:
    provider = Provider(redis)
    first, second = await provider.ask(), await provider.ask()
    await provider.give(first, "- 20000 -")
    await provider.give(second, "- 1000 -")
    refused = await provider.ask(worker="w2")
    assert (refused.kind, refused.why, refused.wait_ms) == ("down", "paused", 20_000)
    provider.now_ms += 18_500
    assert (await provider.ask()).kind == "busy", "1.5 s can be waited for"
    provider.now_ms += 1_500
    assert (await provider.ask()).kind == "held"


async def test_no_terms_no_keys(redis: Redis) -> None:
    provider = Provider(redis, slots=NONE)
    held = await provider.call(OK)
    assert held.kind == "held"
    assert await redis.keys("sb:*") == []
    await provider.call(FAIL)
    await provider.call(NEUTRAL)
    assert await redis.keys("sb:*") == [b"sb:model:openai:m"]
    assert await redis.ttl("sb:model:openai:m") > 0
