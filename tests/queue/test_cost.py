"""What a turn costs the server, in commands: the figure that moves least, and that a careless script doubles."""

import asyncio

from shared import keys
from shared.budgets import DeploymentBudgets, scopes_of
from shared.tenants import Budgets
from tests.ledger.rows import a_row
from tests.queue.harness import QUEUE, TENANT, Bench
from workers.ledger.book import Amount
from workers.ledger.purse import MOST_TOGETHER, Held, Offer, Purse, Settlement
from workers.queue.scripts import Finish

JOBS = 60
AT_MS = 4_000_000_000_000


async def commands(bench: Bench) -> int:
    """Commands executed so far, those inside scripts included, our own look left out."""
    stats = await bench.redis.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name != "cmdstat_info")


async def test_a_turn_in_a_batch_costs_the_server_twelve_commands_at_most(bench: Bench) -> None:
    """Arq's own job costs 17, without order, time to live, record and events."""
    await bench.join("w")
    for n in range(JOBS):
        await bench.accept(f"c{n}")
        await bench.accept(f"c{n}")  # a follower, which becomes eligible
    before = await commands(bench)
    jobs = await bench.claim("w", JOBS)
    ends = [Finish(job.id, job.claim, "end", fields={"state": "succeeded", "reply": "done"}) for job in jobs]
    verdicts, _ = await bench.scripts().finish("w", ends, 0)
    assert verdicts == [True] * JOBS
    assert (await commands(bench) - before) / JOBS <= 12


async def test_the_money_of_a_turn_in_a_batch_costs_the_server_twelve_commands_at_most(bench: Bench) -> None:
    """By itself it costs 31: five counters are read and written twice, of which four are everybody's here."""
    await bench.join("w")
    for n in range(MOST_TOGETHER):
        await bench.accept(f"c{n}")
    jobs, purse, most = await bench.claim("w", MOST_TOGETHER), Purse(bench.commands, QUEUE), Amount(2, 2)
    calls = [(job, a_row()) for job in jobs]
    scopes = [
        scopes_of(Budgets(), DeploymentBudgets(), tenant=TENANT, user_id=None, conversation_id=f"c{n}", at_ms=AT_MS)
        for n in range(len(jobs))
    ]
    await bench.redis.hset(keys.MONEY, "epoch", "1")  # type: ignore[misc]  # redis-py types both worlds at once
    before = await commands(bench)
    answers = await asyncio.gather(
        *(
            purse.reserve(job, [Offer(row, most)], mine, seed=Amount(0, 0))
            for (job, row), mine in zip(calls, scopes, strict=True)
        )
    )
    assert answers == [Held(0)] * len(jobs)
    settled = await asyncio.gather(
        *(purse.settle(job, [Settlement(row.call_id, Amount(1, 1), b"{}")]) for job, row in calls)
    )
    assert settled == [True] * len(jobs)
    assert (await commands(bench) - before) / len(jobs) <= 12


async def test_what_a_turn_said_takes_less_than_a_kilobyte(bench: Bench) -> None:
    """Of its own: a stream of one entry is given a node of four by a server at its defaults."""
    await bench.accept()
    await bench.join("w")
    (job,) = await bench.claim("w")
    await bench.scripts().emit("w", [(job.id, job.claim, "message.delta", '{"delta":"It was sent on Monday."}')])
    assert await bench.redis.memory_usage(keys.events(job.id)) < 1_000


async def test_a_turn_that_said_nothing_leaves_no_stream_and_its_events_are_told_all_the_same(bench: Bench) -> None:
    job_id = await bench.accept()
    await bench.join("w")
    (job,) = await bench.claim("w")
    assert await bench.events(job_id) == [(1, "job.started", '{"attempt":1}')]
    assert await bench.finish(job, "end")
    assert await bench.events(job_id) == [
        (1, "job.started", '{"attempt":1}'),
        (2, "job.ended", '{"state":"succeeded"}'),
    ]
    assert await bench.events(job_id, after=1) == [(2, "job.ended", '{"state":"succeeded"}')]
    assert await bench.events(job_id, after=2) == []
    assert not await bench.redis.exists(f"sb:events:{job_id}")


async def test_a_page_of_events_ends_before_the_end_of_the_job_when_there_are_more(bench: Bench) -> None:
    job_id = await bench.accept()
    await bench.join("w")
    (job,) = await bench.claim("w")
    await bench.scripts().emit("w", [(job_id, job.claim, "message.delta", "{}")] * 3)
    assert await bench.finish(job, "end")
    pages, after = [], 0
    while page := await bench.events(job_id, after=after, count=2):
        pages.append([number for number, _, _ in page])
        after = pages[-1][-1]
    assert pages == [[1, 2, 3], [4, 5]]


async def test_an_end_before_the_start_is_the_only_event(bench: Bench) -> None:
    job_id = await bench.accept()
    assert await bench.intake.cancel("acme", job_id) == "cancelled"
    assert await bench.events(job_id) == [(1, "job.ended", '{"state":"cancelled"}')]
