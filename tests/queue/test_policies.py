"""Merge and interrupt in the scripts: windows, places in the queue, and how much one turn may take in."""

from typing import Any

import pytest

from shared import keys
from shared.ids import uuid7
from shared.wire import MAX_MERGE_WINDOW_S, Policy, TurnPayload
from tests.queue.harness import QUEUE, Bench
from tests.queue.test_fairness import accept, next_ms, nothing_is_counted

DEBOUNCE = f"{QUEUE}:debounce"


async def say(bench: Bench, policy: Policy, window_s: float = 0.0, conversation: str = "c", tenant: str = "t") -> str:
    payload = TurnPayload(job_id=uuid7(), tenant=tenant, agent="support", conversation_id=conversation, message="hello")
    admission = await bench.intake.admit(payload, ttl_s=60, enqueued_ms=0, policy=policy, merge_window_s=window_s)
    assert admission.outcome == "accepted"
    return payload.job_id


async def field(bench: Bench, job_id: str, name: str) -> Any:
    value = await bench.redis.hget(keys.job(job_id), name)
    return None if value is None else value.decode()


async def taken_in(bench: Bench, job_id: str) -> list[str]:
    entries = await bench.redis.lrange(f"sb:taken:{job_id}", 0, -1)
    return [entry.split(b" ")[1].decode() for entry in entries]


async def let_pass(bench: Bench, job_id: str) -> None:
    """The window of `job_id` is over."""
    assert await bench.redis.zadd(DEBOUNCE, {job_id: 1}, xx=True, ch=True)


async def test_a_message_waits_for_others_and_is_due_when_its_window_is_over(bench: Bench) -> None:
    await bench.join("w")
    job_id = await say(bench, "merge", 5.0)
    claims = await bench.scripts().claim("w", 10)
    assert claims is not None
    assert claims.jobs == []
    assert claims.next_ms is not None
    assert 4_000 < claims.next_ms <= 5_000, "when the worker looks again"
    due_ms = await bench.redis.zscore(DEBOUNCE, job_id)
    assert due_ms == int(await field(bench, job_id, "created_us")) // 1_000 + 5_000
    await let_pass(bench, job_id)
    assert [job.id for job in await bench.claim("w", 10)] == [job_id]
    assert await bench.redis.exists(DEBOUNCE) == 0


async def test_every_message_extends_the_window_up_to_ten_seconds_from_the_first(bench: Bench) -> None:
    first = await say(bench, "merge", MAX_MERGE_WINDOW_S)
    first_ms = int(await field(bench, first, "first_ms"))
    await bench.redis.hset(keys.job(first), "first_ms", first_ms - 8_000)  # as if it had come 8 s ago
    second = await say(bench, "merge", 5.0)
    assert await bench.redis.zrange(DEBOUNCE, 0, -1, withscores=True) == [(second.encode(), first_ms + 2_000)]
    assert await taken_in(bench, second) == [first]


async def test_a_message_that_waits_for_a_worker_gives_its_place_to_the_one_that_joins_it(bench: Bench) -> None:
    await bench.join("w")
    first = await say(bench, "merge")
    await next_ms(bench)  # places are milliseconds; within one they go by age
    other = await accept(bench, "t", "d")
    second = await say(bench, "merge", 5.0)
    assert await bench.redis.hget(f"{QUEUE}:heads", "t") == b"2"
    assert [job.id for job in await bench.claim("w", 10)] == [second, other], "at its place, and without a new wait"
    assert await nothing_is_counted(bench)
    assert await field(bench, first, "merged_into") == second


async def test_a_parked_message_gives_its_place_too(bench: Bench) -> None:
    await bench.join("w")
    heads = [await accept(bench, "t", f"c{n}") for n in range(64)]
    first = await say(bench, "merge")
    place = await bench.redis.zscore(f"{QUEUE}:parked:t", first)
    second = await say(bench, "merge")
    assert await bench.redis.zrange(f"{QUEUE}:parked:t", 0, -1, withscores=True) == [(second.encode(), place)]
    assert [job.id for job in await bench.claim("w", 100)] == [*heads, second]
    assert await nothing_is_counted(bench)
    assert await field(bench, first, "state") == "merged"


async def test_one_turn_merges_twenty_messages_at_most(bench: Bench) -> None:
    jobs = [await say(bench, "merge", 5.0) for _ in range(23)]
    assert await taken_in(bench, jobs[20]) == jobs[:20]
    assert await taken_in(bench, jobs[22]) == jobs[21:22]


@pytest.mark.parametrize("before", ["queue", "interrupt", "merge"])
async def test_an_interruption_takes_in_twenty_messages_at_most_and_ends_them_all(bench: Bench, before: Policy) -> None:
    jobs = [await say(bench, before, 5.0) for _ in range(23)]
    newest = await say(bench, "interrupt")
    assert 0 < len(await taken_in(bench, newest)) <= 20
    assert await bench.redis.lrange(keys.conversation("t", "c"), 0, -1) == [newest.encode()]
    states = [await field(bench, job_id, "state") for job_id in jobs]
    assert states == ["cancelled"] * 23 or (before == "merge" and set(states) == {"merged", "cancelled"})
    for job_id in jobs:
        assert (await bench.record(job_id)).over


async def test_a_conversation_with_a_hundred_waiting_messages_cannot_be_interrupted(bench: Bench) -> None:
    """One script call must not end any number of them, and ending some would put later ones before earlier ones."""
    for _ in range(101):
        await accept(bench, "t", "c")
    payload = TurnPayload(job_id=uuid7(), tenant="t", agent="support", conversation_id="c", message="stop")
    assert (await bench.intake.admit(payload, ttl_s=60, enqueued_ms=0, policy="interrupt")).outcome == "full"


async def test_an_interruption_is_not_forgotten_by_a_retry_that_begins_at_that_moment(bench: Bench) -> None:
    await bench.join("w")
    running = await accept(bench, "t", "c")
    (job,) = await bench.claim("w", 1)
    await say(bench, "interrupt")
    assert await bench.finish(job, "retry", delay_ms=60_000)
    (again,) = await bench.claim("w", 10)
    assert (again.id, again.cancelled) == (running, True)


async def test_a_window_never_outlasts_the_time_to_live(bench: Bench) -> None:
    payload = TurnPayload(job_id=uuid7(), tenant="t", agent="support", conversation_id="c", message="hello")
    await bench.intake.admit(payload, ttl_s=1, enqueued_ms=0, policy="merge", merge_window_s=5.0)
    created_ms = int(await field(bench, payload.job_id, "created_us")) // 1_000
    assert await bench.redis.zscore(DEBOUNCE, payload.job_id) == pytest.approx(created_ms + 500, abs=1)


async def test_merged_messages_may_wait_as_long_as_the_most_patient_of_them(bench: Bench) -> None:
    patient = await say(bench, "merge", 5.0)
    until = await bench.redis.zscore(f"{QUEUE}:expiry", patient)
    payload = TurnPayload(job_id=uuid7(), tenant="t", agent="support", conversation_id="c", message="hello")
    await bench.intake.admit(payload, ttl_s=1, enqueued_ms=0, policy="merge", merge_window_s=5.0)
    assert await bench.redis.zrange(f"{QUEUE}:expiry", 0, -1, withscores=True) == [(payload.job_id.encode(), until)]


async def test_nothing_but_a_waiting_job_leaves_its_window(bench: Bench) -> None:
    await bench.join("w")
    await bench.redis.zadd(DEBOUNCE, {"unknown": 1})
    assert await bench.claim("w", 1) == []


async def test_what_waits_for_more_messages_takes_no_place_from_others(bench: Bench) -> None:
    await bench.join("w")
    for n in range(100):
        await say(bench, "merge", 5.0, conversation=f"c{n}")
    ready = await accept(bench, "t", "ready")
    assert [job.id for job in await bench.claim("w", 10)] == [ready]


async def test_a_message_that_waits_for_more_expires_and_is_cancelled_without_a_trace(bench: Bench) -> None:
    await bench.join("w")
    expired, cancelled = await say(bench, "merge", 5.0), await say(bench, "merge", 5.0, conversation="d")
    await bench.redis.zadd(f"{QUEUE}:expiry", {expired: 1})
    assert await bench.claim("w", 10) == []
    assert await bench.intake.cancel("t", cancelled) == "cancelled"
    assert [await field(bench, job_id, "state") for job_id in (expired, cancelled)] == ["expired", "cancelled"]
    assert await bench.redis.exists(DEBOUNCE) == 0


async def test_a_follower_waits_its_own_window_also_behind_a_head_that_ends_early(bench: Bench) -> None:
    await bench.join("w")
    head = await accept(bench, "t", "c")
    (job,) = await bench.claim("w", 1)
    follower = await say(bench, "merge", 5.0)
    assert await bench.finish(job, "end")
    assert await bench.claim("w", 10) == []
    assert await bench.redis.zrange(DEBOUNCE, 0, -1) == [follower.encode()]
    assert head == job.id


async def test_an_operators_retry_is_never_taken_in(bench: Bench) -> None:
    """It is a dead job's next run: its end must be its own."""
    retried = await accept(bench, "t", "c")
    await bench.redis.hset(keys.job(retried), "run", 2)
    newest = await say(bench, "interrupt")
    assert await taken_in(bench, newest) == []
    assert await bench.redis.xlen(keys.ENDED) == 1
    assert await field(bench, retried, "state") == "cancelled"
