"""A tenant with thousands of conversations does not stand in the way of one with a single message."""

import asyncio

from shared.ids import uuid7
from shared.wire import TurnPayload
from tests.queue.harness import QUEUE, TENANT, Bench

HEADS = 64


async def accept(bench: Bench, tenant: str, conversation: str) -> str:
    payload = TurnPayload(job_id=uuid7(), tenant=tenant, agent="support", conversation_id=conversation, message="hello")
    assert (await bench.intake.admit(payload, ttl_s=3_600, enqueued_ms=0)).outcome == "accepted"
    return payload.job_id


async def accept_all(bench: Bench, tenant: str, conversations: int) -> list[str]:
    """In this order and within a moment: who waits for two seconds is no longer passed by a newcomer."""
    return await asyncio.gather(*(accept(bench, tenant, f"c{n}") for n in range(conversations)))


async def next_ms(bench: Bench) -> None:
    """Returns in a later millisecond of the server's clock."""
    first = now = await bench.redis.time()
    while (now[0], now[1] // 1000) == (first[0], first[1] // 1000):
        now = await bench.redis.time()


async def nothing_is_counted(bench: Bench) -> bool:
    names = {name.decode() for name in await bench.redis.keys(f"{QUEUE}:*")}
    return not {name for name in names if "parked" in name or name.endswith(":heads")}


async def test_a_newcomer_goes_first_and_its_next_ones_wait_for_64_heads_of_a_big_tenant_at_most(bench: Bench) -> None:
    big = await accept_all(bench, "big", 500)
    small = await accept_all(bench, "small", 3)
    await bench.join("w")
    first = [job.id for job in await bench.claim("w", HEADS + 3)]
    assert first == [big[0], small[0], *big[1:HEADS], *small[1:]], "each one's first goes before others"
    rest = [job for _ in range(2) for job in await bench.claim("w", 500)]
    assert [job.id for job in rest] == big[HEADS:], "and its own stay in order"
    assert await nothing_is_counted(bench)


async def test_who_has_waited_for_longer_than_the_head_start_goes_before_a_newcomer(bench: Bench) -> None:
    old, older = [await accept(bench, "big", f"c{n}") for n in range(2)]
    await bench.redis.zincrby(QUEUE, -60_000, older)  # as if it had waited for a minute
    small = await accept(bench, "small", "c")
    await bench.join("w")
    assert [job.id for job in await bench.claim("w", 3)] == [older, old, small]


async def test_one_claim_takes_all_a_tenant_has_when_nobody_else_waits(bench: Bench) -> None:
    big = await accept_all(bench, "big", 300)
    await bench.join("w")
    assert [job.id for job in await bench.claim("w", 300)] == big
    assert await nothing_is_counted(bench)


async def test_followers_of_a_big_tenant_queue_up_behind_a_newcomer(bench: Bench) -> None:
    for _ in range(3):
        for n in range(5):
            await accept(bench, "big", f"c{n}")
    await bench.join("w")
    running = await bench.claim("w", 5)
    small = await accept(bench, "small", "c")
    await next_ms(bench)  # places are milliseconds; within one they go by age
    for job in running:
        assert await bench.finish(job, "end")
    assert (await bench.claim("w", 1))[0].id == small


async def test_parked_heads_can_be_cancelled_and_expire_and_leave_no_count_behind(bench: Bench) -> None:
    big = [await accept(bench, "big", f"c{n}") for n in range(100)]
    assert await bench.intake.cancel("big", big[90]) == "cancelled"  # parked
    assert await bench.intake.cancel("big", big[0]) == "cancelled"  # in the queue: the next one takes its place
    await bench.redis.zadd(f"{QUEUE}:expiry", dict.fromkeys([big[1], big[95]], 1.0))
    await bench.join("w")
    taken = [job.id for job in await bench.claim("w", 500)]
    assert taken == [job_id for n, job_id in enumerate(big) if n not in (0, 1, 90, 95)]
    assert await nothing_is_counted(bench)


async def test_retries_releases_and_rescues_keep_the_count_right(bench: Bench) -> None:
    for n in range(HEADS + 10):
        await accept(bench, TENANT, f"c{n}")
    await bench.join("w")
    jobs = await bench.claim("w", 500)
    assert await nothing_is_counted(bench)
    for verb, job in zip(["retry", "release", "retry"], jobs, strict=False):
        assert await bench.finish(job, verb, delay_ms=1 if verb == "retry" else 0)
    assert await bench.redis.hget(f"{QUEUE}:heads", TENANT) == b"1", "a retry that waits takes nobody's place"
    await bench.kill("w")
    await bench.join("v")
    again = await bench.claim("v", 500)
    while len(again) < HEADS + 10:  # the retries are due a millisecond later
        again += await bench.claim("v", 500)
    assert await nothing_is_counted(bench)
    for job in again:
        assert await bench.finish(job, "end")


async def test_a_tenant_whose_retries_wait_is_not_held_up_by_them(bench: Bench) -> None:
    await bench.join("w")
    for n in range(HEADS):
        await accept(bench, "big", f"c{n}")
    for job in await bench.claim("w", HEADS):
        assert await bench.finish(job, "retry", delay_ms=60_000)
    fresh = await accept(bench, "big", "fresh")
    assert [job.id for job in await bench.claim("w", 10)] == [fresh]
    await bench.redis.zadd(f"{QUEUE}:delayed", dict.fromkeys(await bench.redis.zrange(f"{QUEUE}:delayed", 0, -1), 1))
    assert len(await bench.claim("w", 100)) == HEADS
    assert await nothing_is_counted(bench)
