"""No call does more than a bounded piece of work, whatever has piled up: counted in jobs and in Redis commands."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.ids import uuid7
from shared.wire import Policy, TurnPayload
from tests.queue.harness import QUEUE, TENANT, Bench
from workers.queue.scripts import Claimed, Finish

MANY = 10_000
BATCH = 100
"""Jobs one sweep moves at most."""
COMMANDS_PER_JOB = 40
"""More than any script needs for one job; one that looked at all of them would need far more than BATCH times this."""
CHUNK = 500
SOON_MS = 3_600_000
WINDOWS = f"{QUEUE}:debounce"


async def accept_many(bench: Bench, n: int = MANY, policy: Policy = "queue") -> None:
    """Each in a conversation of its own."""

    async def accept(k: int) -> None:
        payload = TurnPayload(job_id=uuid7(), tenant=TENANT, agent="a", conversation_id=f"{n}-{k}", message="hello")
        admitted = await bench.intake.admit(payload, ttl_s=600, enqueued_ms=0, policy=policy, merge_window_s=5.0)
        assert admitted.outcome == "accepted"

    for start in range(0, n, CHUNK):
        await asyncio.gather(*(accept(k) for k in range(start, min(start + CHUNK, n))))


async def claim_many(bench: Bench, worker: str, n: int) -> list[Claimed]:
    await bench.join(worker)
    return await bench.claim(worker, n)


async def commands(bench: Bench) -> int:
    """Run so far, those inside scripts included."""
    counted = await bench.redis.info("commandstats")
    return sum(each["calls"] for each in counted.values())


async def expired(bench: Bench) -> Callable[[], Awaitable[int]]:
    await accept_many(bench)
    ids = await bench.redis.zrange(f"{QUEUE}:expiry", 0, -1)
    await bench.redis.zadd(f"{QUEUE}:expiry", dict.fromkeys(ids, 1))
    return lambda: bench.redis.zcard(f"{QUEUE}:expiry")


async def of_dead_workers(bench: Bench) -> Callable[[], Awaitable[int]]:
    await accept_many(bench)
    dead = [f"dead{n}" for n in range(MANY // CHUNK)]
    for worker in dead:
        await claim_many(bench, worker, CHUNK)
    await bench.redis.zadd(f"{QUEUE}:leases", dict.fromkeys(dead, 1))
    return lambda: bench.redis.zcount(QUEUE, "-inf", 0)


async def due_again(bench: Bench) -> Callable[[], Awaitable[int]]:
    await accept_many(bench)
    for jobs in [await claim_many(bench, "w", CHUNK) for _ in range(MANY // CHUNK)]:
        await bench.scripts().finish("w", [Finish(job.id, job.claim, "retry", SOON_MS) for job in jobs], 0)
    delayed = await bench.redis.zrange(f"{QUEUE}:delayed", 0, -1)
    for key in (QUEUE, f"{QUEUE}:delayed"):
        await bench.redis.zadd(key, dict.fromkeys(delayed, 1), xx=True)
    return lambda: bench.redis.zcard(f"{QUEUE}:delayed")


async def waited_for_more(bench: Bench) -> Callable[[], Awaitable[int]]:
    await accept_many(bench, policy="merge")
    windows = await bench.redis.zrange(WINDOWS, 0, -1)
    await bench.redis.zadd(WINDOWS, dict.fromkeys(windows, 1))
    return lambda: bench.redis.zcard(WINDOWS)


@pytest.mark.parametrize("pile_up", [expired, of_dead_workers, due_again, waited_for_more])
async def test_a_sweep_moves_a_hundred_of_ten_thousand_and_the_next_one_goes_on(
    bench: Bench, pile_up: Callable[[Bench], Awaitable[Callable[[], Awaitable[int]]]]
) -> None:
    count = await pile_up(bench)
    await bench.join("living")
    for sweeps in range(1, 4):
        before = await commands(bench)
        claims = await bench.scripts().claim("living", 0)
        assert await commands(bench) - before < BATCH * COMMANDS_PER_JOB
        assert await count() == MANY - sweeps * BATCH
        assert claims is not None
        assert claims.next_ms == 0, "its worker must come again at once"


async def test_a_sweep_moves_a_hundred_jobs_also_of_several_dead_workers(bench: Bench) -> None:
    await accept_many(bench, 400)
    for worker, n in (("dead1", 99), ("dead2", 100), ("dead3", 150)):
        await claim_many(bench, worker, n)
    await bench.redis.zadd(f"{QUEUE}:leases", {"dead1": 1, "dead2": 2, "dead3": 3})
    await bench.join("living")
    held = [349]
    while held[-1]:
        await bench.scripts().claim("living", 0)
        held.append(await bench.redis.zcount(QUEUE, "-inf", 0))
        assert 0 < held[-2] - held[-1] <= BATCH, held


async def test_what_a_claim_costs_depends_on_what_it_takes_and_not_on_what_waits(bench: Bench) -> None:
    await bench.join("w")
    costs = []
    for waiting in (20, MANY):
        await accept_many(bench, waiting)
        await claim_many(bench, "w", 1)  # the script is known now
        before = await commands(bench)
        assert len(await bench.claim("w", 10)) == 10
        costs.append(await commands(bench) - before)
    few, many = costs
    assert many <= few + 10 * COMMANDS_PER_JOB
