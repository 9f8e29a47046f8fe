"""Answers in a real Redis: their time, their room, their flights, and a server that is away."""

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from ops.stack.directory import DataDirectory
from ops.stack.valkey import start_valkey
from shared import keys
from shared.redis import Commands, connect
from shared.telemetry.metrics import exposition
from tests.cache.conftest import LEASE_S, Stores, a_question, an_answer
from tests.conftest import Eventually
from tests.telemetry.numbers import grown, numbers
from workers.cache.question import Question
from workers.cache.room import Room
from workers.cache.store import AnswerStore


async def age(redis: Redis, question: Question, by_s: float) -> None:
    """As if it had been kept so much earlier."""
    name = keys.cached(question.tenant, question.digest)
    at, _, answer = (await redis.get(name)).partition(b" ")
    await redis.set(name, b"%d %s" % (int(at) - int(by_s * 1000), answer), keepttl=True)


async def test_an_answer_is_found_until_its_time_is_over_and_kept_for_longer(stores: Stores, redis: Redis) -> None:
    store, question = stores(), a_question(ttl_s=300)
    assert await store.ask(question, "me") == "lead"
    await store.keep(question, "me", an_answer())
    assert await store.ask(question, "other") == an_answer()
    await age(redis, question, 299)
    assert await store.ask(question, "other") == an_answer()
    await age(redis, question, 2)
    assert await store.ask(question, "other") == "lead"
    assert await store.stale(question) == an_answer()
    left_s = await redis.pttl(keys.cached("acme", "q")) / 1000
    assert 3_890 < left_s <= 3_900


async def test_the_asker_s_own_time_counts_so_that_a_shorter_one_is_in_force_at_once(
    stores: Stores, redis: Redis
) -> None:
    store = stores()
    await store.keep(a_question(ttl_s=300), "me", an_answer())
    await age(redis, a_question(), 10)
    assert await store.ask(a_question(ttl_s=5), "me") == "lead"
    assert await store.ask(a_question(ttl_s=11), "me") == an_answer()


async def test_another_tenant_is_not_given_it_even_under_the_same_hash(stores: Stores) -> None:
    store = stores()
    await store.keep(a_question(tenant="acme"), "me", an_answer())
    assert await store.ask(a_question(tenant="other"), "me") == "lead"
    assert await store.stale(a_question(tenant="other")) is None


async def test_one_leads_and_the_others_wait_until_it_lands(stores: Stores, redis: Redis) -> None:
    store, question = stores(), a_question()
    assert await store.ask(question, "one") == "lead"
    assert 0 < await redis.pttl(keys.flight("acme", "q")) <= LEASE_S * 1000
    assert await store.ask(question, "two") == "wait"
    await store.land(question, "two")
    assert await store.ask(question, "two") == "wait", "somebody else's flight is not ours to land"
    await store.land(question, "one")
    assert await store.ask(question, "two") == "lead"
    assert await store.ask(question, "three") == "wait"


async def test_nobody_waits_for_what_is_not_to_be_shared_and_a_good_answer_ends_that(stores: Stores) -> None:
    store, question = stores(), a_question()
    await store.ask(question, "one")
    await store.land(question, "one", shareable=False)
    assert await store.ask(question, "two") == "alone"
    await store.keep(question, "", an_answer())
    assert await store.ask(question, "three") == an_answer()


async def test_a_flight_lasts_as_long_as_it_is_held_and_no_longer(
    stores: Stores, redis: Redis, eventually: Eventually
) -> None:
    store, question, flight = stores(lease_s=60.0), a_question(), keys.flight("acme", "q")
    await store.ask(question, "one")
    assert 50_000 < await redis.pttl(flight) <= 60_000
    for _ in range(3):
        await redis.pexpire(flight, 30_000)  # half of its time is over
        await store.hold({"one": question})
        assert await redis.pttl(flight) > 50_000
        assert await store.ask(question, "two") == "wait"
    await redis.pexpire(flight, 1)

    async def mine() -> bool:
        return await store.ask(question, "two") == "lead"

    await eventually(mine)
    await redis.pexpire(flight, 30_000)
    await store.hold({"one": question})
    assert await redis.pttl(flight) <= 30_000, "it is not his any more"
    await store.land(question, "one")
    assert await store.ask(question, "three") == "wait", "the first asker woke up, and the flight is the second's"


async def total_size(redis: Redis) -> int:
    names = [name async for name in redis.scan_iter("sb:cache*")]
    sizes = [await redis.memory_usage(name, samples=0) or 0 for name in names]
    return sum(sizes)


@with_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(), most=st.sampled_from([20_000, 60_000]))
async def test_kept_answers_never_take_more_than_their_bytes(
    seed: int, most: int, stores: Stores, redis: Redis
) -> None:
    draw = random.Random(seed)  # noqa: S311 - sizes, no secrets
    await redis.flushdb()
    store = stores(max_bytes=most)
    for number in range(80):
        text = "x" * draw.choice([1, 50, 900, 5_000, most * 2])
        await store.keep(a_question(f"{draw.randrange(60):064}"), "me", an_answer(text))
        if number % 7 == 0:
            await redis.delete(keys.cached("acme", f"{draw.randrange(60):064}"))  # as if its time were over
        assert await total_size(redis) <= most
    counted = {name: int(size) for name, size in (await redis.hgetall(keys.CACHED_SIZES)).items()}
    together = counted.pop(b"")
    assert together == sum(counted.values()) <= most
    assert set(counted) == set(await redis.zrange(keys.CACHED_ORDER, 0, -1))


async def test_the_oldest_make_room(stores: Stores, redis: Redis) -> None:
    store = stores(max_bytes=7_000)
    for place, name in enumerate("abcde"):
        await store.keep(a_question(name), "me", an_answer("x" * 800))
        await redis.zadd(keys.CACHED_ORDER, {keys.cached("acme", name): place})
    found = [await store.stale(a_question(name)) is not None for name in "abcde"]
    assert found == [False, True, True, True, True]


async def test_an_index_that_the_server_dropped_costs_answers_and_not_the_bound(stores: Stores, redis: Redis) -> None:
    store = stores(max_bytes=6_000)
    for name in "abcd":
        await store.keep(a_question(name), "me", an_answer("x" * 800))
    await redis.delete(keys.CACHED_ORDER)
    await store.keep(a_question("e"), "me", an_answer("x" * 800))
    assert await store.ask(a_question("e"), "me") == an_answer("x" * 800)
    assert int(await redis.hget(keys.CACHED_SIZES, "")) <= 6_000


async def test_nothing_is_left_of_an_unused_cache(stores: Stores, redis: Redis) -> None:
    await stores(stale_s=60).keep(a_question(ttl_s=10), "me", an_answer())
    async for name in redis.scan_iter("sb:*"):
        assert 0 < await redis.pttl(name) <= 70_000, name


async def test_a_server_that_is_away_is_no_answer_and_is_left_alone_for_a_while(unused_tcp_port: int) -> None:
    commands = Commands(connect(f"redis://127.0.0.1:{unused_tcp_port}/0"))
    store, question = AnswerStore(commands, stale_s=1, max_bytes=1, lease_s=1.0), a_question()
    before = numbers(exposition().decode())
    assert await store.ask(question, "me") == "alone"
    await store.keep(question, "me", an_answer())
    await store.land(question, "me")
    await store.hold({"me": question})
    assert await store.stale(question) is None
    assert grown(before, numbers(exposition().decode())).get("switchboard_cache_failures_total{}") == 1
    await commands.aclose()


async def test_what_another_version_kept_is_no_answer(stores: Stores, redis: Redis) -> None:
    store, question = stores(), a_question()
    await store.keep(question, "me", an_answer())
    await redis.set(keys.cached("acme", "q"), (await redis.get(keys.cached("acme", "q"))).split()[0] + b" [1]")
    assert await store.ask(question, "me") == "alone"
    assert await store.stale(question) is None


async def test_answers_that_come_while_the_server_is_asked_for_room_are_kept_too(
    stores: Stores, commands: Commands
) -> None:
    store = stores(room=Room(commands))
    questions = [a_question(str(n)) for n in range(5)]
    await asyncio.gather(*(store.keep(question, "me", an_answer()) for question in questions))
    assert [await store.stale(question) for question in questions] == [an_answer()] * 5


@pytest.mark.parametrize("share", [0.5, 0.9])
async def test_a_queue_short_of_memory_is_given_nothing_to_keep(private_directory: DataDirectory, share: float) -> None:
    server = start_valkey(private_directory)
    try:
        commands = Commands(connect(server.url()))
        used = (await commands.run("INFO", "memory"))["used_memory"]
        await commands.run("CONFIG", "SET", "maxmemory", int((used + 5_000_000) / share))
        await commands.run("SETRANGE", "ballast", 5_000_000, "x")
        store = AnswerStore(commands, stale_s=10, max_bytes=1 << 20, lease_s=1.0, room=Room(commands))
        assert await store.ask(a_question(), "me") == "lead"
        await store.keep(a_question(), "me", an_answer())
        assert await store.ask(a_question(), "me") == (an_answer() if share < 0.8 else "lead")
        await commands.aclose()
    finally:
        server.child.stop()


async def test_an_answer_asked_for_before_somebody_was_erased_is_not_kept(stores: Stores, commands: Commands) -> None:
    store = stores()
    seconds, us = await commands.run("TIME")
    await commands.run("SET", keys.erased("acme"), seconds * 1000 + us // 1000)
    await store.keep(a_question(tenant="acme"), "me", an_answer(), age_s=5.0)
    assert await store.stale(a_question(tenant="acme")) is None
    await store.keep(a_question(tenant="other"), "me", an_answer(), age_s=5.0)
    assert await store.stale(a_question(tenant="other")) == an_answer()
