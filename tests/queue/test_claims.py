"""What the scripts promise about a job's place, its attempts and its end, whoever calls them."""

from shared import keys
from shared.jobs import JobState
from tests.conftest import Eventually
from tests.ledger.rows import a_row
from tests.queue.harness import QUEUE, TENANT, Bench
from workers.ledger.book import Amount
from workers.ledger.purse import Lost, Offer, Purse, Settlement


async def test_a_released_job_keeps_its_place_and_its_attempt_is_not_counted(bench: Bench) -> None:
    first, second = await bench.accept("c1"), await bench.accept("c2")
    await bench.join("w")
    (job,) = await bench.claim("w", 1)
    assert job.id == first
    assert await bench.finish(job, "release")
    assert await bench.attempts(first) == 0
    assert (await bench.record(first)).state == JobState.RETRYING
    assert [again.id for again in await bench.claim("w")] == [first, second]
    assert await bench.attempts(first) == 1


async def test_the_attempt_of_a_killed_worker_counts(bench: Bench) -> None:
    """Else a job that kills its worker would do so forever."""
    job_id = await bench.accept()
    for expected, worker in enumerate(["w1", "w2", "w3"], start=1):
        await bench.join(worker)
        (job,) = await bench.claim(worker)
        assert (job.id, job.attempt) == (job_id, expected)
        await bench.kill(worker)


async def test_a_killed_workers_jobs_go_back_to_their_places_and_its_writes_change_nothing(bench: Bench) -> None:
    ids = [await bench.accept(f"c{n}") for n in range(3)]
    await bench.join("dead")
    taken = await bench.claim("dead", 2)
    await bench.kill("dead")
    await bench.join("w")
    assert [job.id for job in await bench.claim("w")] == ids
    assert not await bench.finish(taken[0], "end")
    assert await bench.scripts().emit("dead", [(ids[0], taken[0].claim, "message.delta", "{}")]) == {ids[0]}
    purse = Purse(bench.commands, QUEUE)
    assert await purse.reserve(taken[0], [Offer(a_row("call"), Amount(1, 1))], []) == Lost()
    assert not await purse.settle(taken[0], [Settlement("call", Amount(1, 1), b"{}")])
    assert not await bench.redis.exists(keys.calls(ids[0]))
    assert (await bench.record(ids[0])).state == JobState.RUNNING


async def test_a_worker_without_a_lease_is_given_nothing(bench: Bench) -> None:
    """Nobody would take its jobs back: they would be lost."""
    await bench.accept("c1")
    await bench.join("w")
    (job,) = await bench.claim("w")
    await bench.accept("c2")
    await bench.kill("w")
    assert await bench.scripts().claim("w", 10) is None
    _, claims = await bench.scripts().finish("w", [], 10)
    assert claims is None
    assert job.worker == "w"
    assert await bench.redis.zcount(QUEUE, 1, "+inf") == 1


async def test_a_retry_waits_and_then_returns_to_its_own_place(bench: Bench, eventually: Eventually) -> None:
    first = await bench.accept("c1")
    await bench.join("w")
    (job,) = await bench.claim("w")
    assert await bench.finish(job, "retry", delay_ms=150)
    later = [await bench.accept(f"d{n}") for n in range(3)]
    assert await bench.redis.zscore(f"{QUEUE}:delayed", first) is not None
    assert await bench.claim("w", 0) == []

    async def due() -> bool:
        await bench.claim("w", 0)  # moves what is due to its place
        return await bench.redis.zscore(f"{QUEUE}:delayed", first) is None

    assert await eventually(due)
    assert [job.id for job in await bench.claim("w")] == [first, *later]
    assert await bench.attempts(first) == 2


async def test_only_the_head_of_a_conversation_can_be_taken_and_its_followers_keep_their_order(bench: Bench) -> None:
    ids = [await bench.accept("c1") for _ in range(3)]
    other = await bench.accept("c2")
    await bench.join("w")
    head, elsewhere = await bench.claim("w")
    assert (head.id, elsewhere.id) == (ids[0], other)
    for expected in ids[1:]:
        assert await bench.claim("w") == []
        await bench.finish(head, "end")
        (head,) = await bench.claim("w")
        assert head.id == expected


async def test_jobs_nobody_started_expire_and_so_do_their_followers(bench: Bench) -> None:
    ids = [await bench.accept("c1", ttl_s=0) for _ in range(2)]
    lasting = await bench.accept("c1")
    await bench.join("w")
    (job,) = await bench.claim("w")
    assert job.id == lasting
    assert [(await bench.record(i)).state for i in ids] == [JobState.EXPIRED] * 2
    ended = [entry[b"id"].decode() for _, entry in await bench.redis.xrange("sb:ended")]
    assert ended == ids
    assert all(entry[b"payload"] for _, entry in await bench.redis.xrange("sb:ended"))


async def test_a_job_that_was_started_does_not_expire(bench: Bench) -> None:
    job_id = await bench.accept(ttl_s=60)
    await bench.join("w")
    (job,) = await bench.claim("w")
    assert await bench.redis.zcard(f"{QUEUE}:expiry") == 0
    await bench.finish(job, "release")
    assert [again.id for again in await bench.claim("w")] == [job_id]


async def test_cancelling_a_queued_job_ends_it_and_lets_the_next_one_go(bench: Bench) -> None:
    first, second = await bench.accept("c1"), await bench.accept("c1")
    assert await bench.intake.cancel(TENANT, first) == "cancelled"
    assert (await bench.record(first)).state == JobState.CANCELLED
    await bench.join("w")
    assert [job.id for job in await bench.claim("w")] == [second]
    assert await bench.intake.cancel(TENANT, first) == "ended"
    assert await bench.intake.cancel("other", second) == "unknown"


async def test_cancelling_a_running_job_reaches_its_worker_and_also_the_next_one(bench: Bench) -> None:
    job_id = await bench.accept()
    await bench.join("w1")
    await bench.claim("w1")
    assert await bench.intake.cancel(TENANT, job_id) == "requested"
    assert await bench.scripts().beat("w1", 60_000, "beat") == [job_id]
    await bench.kill("w1")
    await bench.join("w2")
    (job,) = await bench.claim("w2")
    assert job.cancelled


async def test_cancelling_a_job_that_waits_for_its_retry_brings_it_back_at_once(bench: Bench) -> None:
    job_id = await bench.accept()
    await bench.join("w")
    (job,) = await bench.claim("w")
    await bench.finish(job, "retry", delay_ms=60_000)
    assert await bench.intake.cancel(TENANT, job_id) == "requested"
    (again,) = await bench.claim("w")
    assert (again.id, again.cancelled) == (job_id, True)


async def test_a_claim_restricted_to_ids_takes_those_that_are_due_and_free(bench: Bench) -> None:
    running, free, _other = [await bench.accept(f"c{n}") for n in range(3)]
    await bench.join("w1")
    await bench.join("w2")
    await bench.scripts().claim("w1", 1, only=[running])
    claims = await bench.scripts().claim("w2", 10, only=[running, free, "unknown"])
    assert claims is not None
    assert [job.id for job in claims.jobs] == [free]
    assert claims.held == 1


async def test_a_worker_that_leaves_takes_nothing_with_it(bench: Bench) -> None:
    job_id = await bench.accept()
    await bench.join("w1")
    (job,) = await bench.claim("w1")
    await bench.scripts().beat("w1", 0, "leave")
    await bench.join("w2")
    assert [again.id for again in await bench.claim("w2")] == [job_id]
    assert not await bench.finish(job, "end")
    assert await bench.redis.zrange(f"{QUEUE}:leases", 0, -1) == [b"w2"]


async def test_a_release_repeated_after_its_answer_was_lost_does_not_touch_the_next_claim(bench: Bench) -> None:
    await bench.accept()
    await bench.join("w")
    (job,) = await bench.claim("w")
    assert await bench.finish(job, "release")
    (again,) = await bench.claim("w")
    assert (again.attempt, again.worker) == (job.attempt, job.worker)
    assert int(again.claim) > int(job.claim)
    assert not await bench.finish(job, "release")
    assert await bench.finish(again, "end")


async def test_thousands_of_retries_that_come_due_together_run_and_leave_room_for_others(bench: Bench) -> None:
    many = 1_300
    for n in range(many):
        await bench.accept(f"c{n}")
    await bench.join("w")
    taken = [job for _ in range(3) for job in await bench.claim("w", 500)]
    for job in taken:
        assert await bench.finish(job, "retry", delay_ms=1)
    fresh = await bench.accept("fresh")
    again = [job for _ in range(4) for job in await bench.claim("w", 500)]
    assert {job.id for job in again} == {job.id for job in taken} | {fresh}
    assert [float(job.score) for job in taken] == sorted(float(job.score) for job in taken)
    assert await bench.redis.zcard(f"{QUEUE}:delayed") == 0
    assert await bench.redis.zcount(QUEUE, 1, "+inf") == 0
    for job in again[:1] + again[-1:]:
        assert await bench.finish(job, "end")
