"""What a turn costs the server, in commands: the figure that moves least, and that a careless script doubles."""

from tests.queue.harness import Bench
from workers.queue.scripts import Finish

JOBS = 60


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
