"""The circuit breaker of a model, shared by all workers: when it opens, who may try, and when it closes."""

import pytest
from redis.asyncio import Redis

from tests.conftest import Eventually
from tests.routing.provider import ACCOUNT, FAIL, NEUTRAL, OK, Provider


async def opened(redis: Redis) -> Provider:
    provider = Provider(redis)
    await provider.lease("w1")
    for _ in range(5):
        await provider.call(FAIL)
    return provider


async def test_opens_after_so_many_failures_and_closes_when_a_probe_succeeds(redis: Redis) -> None:
    provider = Provider(redis)
    await provider.lease("w1")
    for _ in range(4):
        await provider.call(FAIL)
    assert (await provider.call(FAIL)).kind == "held"
    refused = await provider.ask(worker="w2")
    assert (refused.kind, refused.why) == ("down", "open")
    assert 8_000 <= refused.wait_ms <= 12_000, "10 s, give or take a fifth"
    provider.now_ms += refused.wait_ms
    probe = await provider.ask()
    assert probe.kind == "held"
    assert (await provider.ask()).why == "probing", "one only"
    await provider.give(probe, OK)
    for _ in range(4):
        assert (await provider.call(FAIL)).kind == "held", "it starts to count anew"
    assert (await provider.ask()).kind == "held"


async def test_other_models_are_not_concerned(redis: Redis) -> None:
    provider = await opened(redis)
    assert (await provider.ask(model="other")).kind == "held"


async def test_answers_that_are_as_many_keep_it_closed(redis: Redis) -> None:
    provider = Provider(redis)
    for _ in range(50):
        await provider.call(FAIL)
        await provider.call(OK)
        await provider.call(OK)
    assert (await provider.ask()).kind == "held"


async def test_failures_far_apart_do_not_open_it(redis: Redis) -> None:
    provider = Provider(redis)
    for _ in range(50):
        await provider.call(FAIL)
        provider.now_ms += 8_000
    assert (await provider.ask()).kind == "held"


async def test_neither_our_cancels_nor_rate_limits_count(redis: Redis) -> None:
    provider = Provider(redis)
    for _ in range(50):
        await provider.call(NEUTRAL)
        await provider.call("- - -")
    assert (await provider.ask()).kind == "held"


async def test_a_probe_that_fails_doubles_the_wait_up_to_a_bound(redis: Redis) -> None:
    provider = await opened(redis)
    waits = []
    for _ in range(7):
        refused = await provider.ask()
        waits.append(refused.wait_ms)
        provider.now_ms += refused.wait_ms
        await provider.call(FAIL)
    for n, wait_ms in enumerate(waits):
        expected = min(10_000 * 2**n, 120_000)
        assert 0.8 * expected <= wait_ms <= 1.2 * expected


async def test_what_was_under_way_when_it_opened_changes_nothing(redis: Redis) -> None:
    provider = Provider(redis)
    await provider.lease("w1")
    late = [await provider.ask() for _ in range(10)]
    for _ in range(5):
        await provider.call(FAIL)
    before = await provider.ask()
    for n, call in enumerate(late):
        await provider.give(call, OK if n % 2 else FAIL)
    after = await provider.ask()
    assert (after.why, after.wait_ms) == ("open", before.wait_ms)


@pytest.mark.parametrize("end", ["cancelled", "killed", "stuck"])
async def test_a_probe_that_says_nothing_makes_way_for_another(redis: Redis, eventually: Eventually, end: str) -> None:
    provider = await opened(redis)
    provider.now_ms += 12_000
    await provider.lease("w2", until_ms=provider.now_ms + 4_000)
    probe = await provider.ask(worker="w2")
    assert probe.kind == "held"
    assert (await provider.ask()).why == "probing"
    if end == "cancelled":
        await provider.give(probe, NEUTRAL)
    elif end == "killed":
        provider.now_ms += 4_000
    else:
        await provider.lease("w2")
        provider.now_ms += 60_000
    assert (await provider.ask()).kind == "held"
    assert (await provider.ask()).why == "probing"


@pytest.mark.parametrize("failures", [5, 0])
async def test_a_refusal_of_our_account_is_enough_and_is_asked_about_rarely(redis: Redis, failures: int) -> None:
    provider = Provider(redis, failures=failures)
    await provider.lease("w1")
    late = await provider.ask()
    for _ in range(3):
        await provider.call(ACCOUNT)
        refused = await provider.ask()
        assert (refused.kind, refused.why) == ("down", "account")
        assert 240_000 <= refused.wait_ms <= 360_000, "no longer after the third"
        provider.now_ms += refused.wait_ms
    await provider.give(late, ACCOUNT)
    probe = await provider.ask()
    assert (probe.kind, (await provider.ask()).why) == ("held", "probing")
    await provider.give(probe, OK)
    assert (await provider.call(OK)).kind == "held"
    assert (await provider.ask()).kind == "held"
    for _ in range(5):
        await provider.call(FAIL)
    assert (await provider.ask()).kind == ("down" if failures else "held")


async def test_zero_failures_switch_it_off(redis: Redis) -> None:
    provider = Provider(redis, failures=0)
    for _ in range(50):
        await provider.call(FAIL)
    assert (await provider.ask()).kind == "held"
