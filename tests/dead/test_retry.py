"""Retrying a dead job, end to end: the same job, one run more, in the place the operator chose."""

import asyncio
from typing import Any

import msgspec
import pytest

from ops.dead.books import DeadFilter
from ops.dead.desk import Desk
from ops.dead.edit import Edit
from ops.dead.requeue import Requeue
from ops.dead.retry import Refusal, Retried
from shared import keys
from shared.errors import Conflict, InvalidRequest, NotFound, QueueFull
from shared.ids import uuid7
from shared.scripts import read_events
from shared.wire import TurnPayload
from tests.conftest import Database, Eventually
from tests.dead.graveyard import bury, kill, retry, settings_with
from tests.turn.deployment import TENANT, Deployment

OPEN = DeadFilter(disposition="open")


async def order(deployment: Deployment, conversation: str = "c1") -> list[str]:
    name = keys.conversation(TENANT, conversation)
    return [job_id.decode() for job_id in await deployment.commands.run("LRANGE", name, 0, -1)]


async def eligible(deployment: Deployment) -> list[str]:
    return [job_id.decode() for job_id in await deployment.commands.redis.zrange(keys.queue("default"), 0, -1)]


async def event_types(deployment: Deployment, job_id: str) -> list[tuple[int, str]]:
    _, events = await read_events(deployment.commands, job_id)
    return [(event.seq, event.type) for event in events if event.type != "message.delta"]


async def test_a_retried_job_succeeds_under_its_id_and_keeps_its_books_together(
    deployment: Deployment, desk: Desk
) -> None:
    job_id = await kill(deployment)
    before = await deployment.intake.read(job_id)
    retried = await retry(desk, job_id)
    assert retried == Retried(job_id=job_id, tenant=TENANT, run=2, place=0, repeated=False)
    async with deployment.worker():
        record = await deployment.ended(job_id)
    assert (record.state, record.run, record.attempts, record.error) == ("succeeded", 2, 2, None)
    assert before is not None
    assert record.created_us == before.created_us
    calls = await deployment.rows("llm_calls", job_id)
    assert [(call["run"], call["status"]) for call in calls] == [(1, "error"), (2, "ok")]
    assert record.cost_nano_usd == sum(call["cost_nano_usd"] for call in calls)
    assert [row["state"] for row in await deployment.rows("jobs", job_id)] == ["dead", "succeeded"]
    assert [message["role"] for message in await deployment.rows("messages", job_id)] == ["user", "assistant"]
    (dead,) = await deployment.rows("dead_jobs", job_id)
    assert (dead["disposition"], dead["resolved_by"], dead["retry_run"], dead["retry_position"]) == (
        "retried", "tests", 2, "end",
    )  # fmt: skip
    assert dead["retry_payload"] is None
    assert await deployment.commands.redis.exists(keys.arq_job(job_id), f"arq:retry:{job_id}") == 0


async def test_a_second_death_is_a_dead_run_of_its_own(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    await deployment.behave({"match": "doomed", "faults": [{"status": 500, "times": 100}]})
    await retry(desk, job_id)
    async with deployment.worker():
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("dead", 5)
    rows = await deployment.rows("dead_jobs", job_id)
    assert [(row["run"], row["attempts"], row["disposition"]) for row in rows] == [(1, 1, "retried"), (2, 4, "open")]
    assert [error["attempt"] for error in msgspec.json.decode(rows[1]["attempt_errors"])] == [1, 2, 3, 4]
    (listed,) = await desk.books.page(OPEN, None, 10)
    assert (listed.job_id, listed.run) == (job_id, 2)
    detail = await desk.books.find(None, job_id)
    assert [run.error.code for run in detail.runs if run.error] == ["upstream_rejected", "upstream_unavailable"]
    await deployment.behave()
    assert (await retry(desk, job_id)).run == 3
    async with deployment.worker():
        assert (await deployment.ended(job_id)).attempts == 6


async def test_at_the_end_it_waits_behind_everything(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    waiting = [await deployment.say(f"later {n}") for n in range(2)]
    assert (await retry(desk, job_id, "end")).place == 2
    assert await order(deployment) == [*waiting, job_id]
    assert await eligible(deployment) == [waiting[0]]


async def test_in_place_it_goes_before_what_waits_and_the_displaced_head_comes_next(
    deployment: Deployment, desk: Desk
) -> None:
    job_id = await kill(deployment)
    waiting = [await deployment.say(f"later {n}") for n in range(2)]
    assert (await retry(desk, job_id, "in_place")).place == 0
    assert await order(deployment) == [job_id, *waiting]
    assert await eligible(deployment) == [job_id]
    async with deployment.worker():
        records = [await deployment.ended(one) for one in (job_id, *waiting)]
    assert [record.state for record in records] == ["succeeded"] * 3
    starts = [record.started_us or 0 for record in records]
    assert starts == sorted(starts)


async def test_in_place_it_never_overtakes_a_head_that_was_started(
    deployment: Deployment, desk: Desk, eventually: Eventually
) -> None:
    job_id = await kill(deployment)
    await deployment.behave({"match": "slow", "ttft_ms": 60_000})
    async with deployment.worker(drain_s=0.1):
        head, follower = await deployment.say("slow"), await deployment.say("later")

        async def running() -> bool:
            record = await deployment.intake.read(head)
            return record is not None and record.state == "running"

        await eventually(running)
        assert (await retry(desk, job_id, "in_place")).place == 1
        assert await order(deployment) == [head, job_id, follower]
        assert await eligible(deployment) == [head]
    assert (await deployment.intake.read(head)).state == "retrying"  # type: ignore[union-attr]  # it is there
    other = await bury(deployment.settings.database_url, conversation_id="c1")
    assert (await retry(desk, other, "in_place")).place == 1, "older than the other one, behind the head all the same"


async def test_of_two_at_once_one_starts_a_run_and_the_other_is_told_of_it(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    both = await asyncio.gather(retry(desk, job_id), retry(desk, job_id))
    assert sorted(one.repeated for one in both) == [False, True]
    assert {one.run for one in both} == {2}
    assert await order(deployment) == [job_id]
    async with deployment.worker():
        await deployment.ended(job_id)
    assert len(await deployment.rows("jobs", job_id)) == 2


async def test_a_job_on_its_way_is_left_alone(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    await retry(desk, job_id)
    with pytest.raises(Conflict, match="on its way") as refused:
        await retry(desk, job_id, message="something else")
    assert refused.value.code == "job_live"
    assert await order(deployment) == [job_id]
    (dead,) = await deployment.rows("dead_jobs", job_id)
    assert dead["retry_payload"] is None


async def test_a_job_that_succeeded_meanwhile_is_not_run_again(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    await retry(desk, job_id)
    async with deployment.worker():
        await deployment.ended(job_id)
    for gone in (False, True):
        if gone:
            await deployment.commands.redis.flushdb()
        with pytest.raises(Conflict) as refused:
            await retry(desk, job_id)
        assert refused.value.code == "job_has_newer_run"


async def test_a_run_that_expired_and_is_not_in_the_books_yet_is_not_started_twice(
    deployment: Deployment, desk: Desk
) -> None:
    job_id = await kill(deployment)
    await retry(desk, job_id)
    assert await deployment.intake.cancel(TENANT, job_id) == "cancelled"
    with pytest.raises(Conflict) as refused:
        await retry(desk, job_id)
    assert refused.value.code == "job_has_newer_run"


async def test_what_never_died_cannot_be_retried(deployment: Deployment, desk: Desk) -> None:
    with pytest.raises(NotFound):
        await retry(desk, uuid7())
    with pytest.raises(NotFound):
        await retry(desk, await bury(deployment.settings.database_url), tenant="other")


async def test_an_expired_job_runs_with_a_fresh_time_to_live(
    deployment: Deployment, desk: Desk, eventually: Eventually
) -> None:
    job_id = await deployment.say("late", ttl_s=60)
    expiry = f"{keys.queue('default')}:expiry"
    await deployment.commands.redis.zadd(expiry, {job_id: 1.0})

    async def booked() -> bool:
        return bool(await deployment.rows("dead_jobs", job_id))

    async with deployment.worker():
        await eventually(booked)
        await retry(desk, job_id)
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts, record.run) == ("succeeded", 1, 2)
    assert [message["role"] for message in await deployment.rows("messages", job_id)] == ["user", "assistant"]


async def test_readers_see_it_start_again_under_higher_numbers(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    last, kind = (await event_types(deployment, job_id))[-1]
    assert kind == "job.ended"
    await retry(desk, job_id)
    assert await event_types(deployment, job_id) == [], "an end in the stream would send its readers away"
    assert await deployment.commands.redis.ttl(keys.job(job_id)) == -1
    async with deployment.worker():
        await deployment.ended(job_id)
    events = await event_types(deployment, job_id)
    assert [kind for _, kind in events] == ["attempt.reset", "job.started", "job.ended"]
    assert events[0][0] == last + 1


async def test_a_job_that_redis_forgot_is_rebuilt_from_the_books(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment, metadata={"order": 7})
    await deployment.commands.redis.flushdb()
    await retry(desk, job_id)
    waiting = await deployment.intake.read(job_id)
    assert waiting is not None
    assert (waiting.state, waiting.user_id, waiting.metadata, waiting.position) == ("queued", "u1", {"order": 7}, 0)
    async with deployment.worker():
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    assert (await event_types(deployment, job_id))[0] == (1_000_001, "attempt.reset")


async def test_after_a_crash_before_the_mark_asking_again_only_marks(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    await _requeue_without_mark(deployment, job_id)
    retried = await retry(desk, job_id)
    assert retried.repeated
    (dead,) = await deployment.rows("dead_jobs", job_id)
    assert (dead["disposition"], dead["retry_run"]) == ("retried", 2)
    assert await order(deployment) == [job_id]


async def test_after_a_crash_before_the_mark_the_next_end_closes_the_row_by_itself(
    deployment: Deployment, desk: Desk
) -> None:
    job_id = await kill(deployment)
    await _requeue_without_mark(deployment, job_id)
    async with deployment.worker():
        await deployment.ended(job_id)
    assert await desk.books.page(OPEN, None, 10) == []
    assert await desk.books.open_after(DeadFilter(), None, 10) == []
    (listed,) = await desk.books.page(DeadFilter(disposition="retried"), None, 10)
    assert (listed.job_id, listed.disposition) == (job_id, "retried")
    with pytest.raises(Conflict):
        await desk.books.discard(None, job_id, "tests")


async def _requeue_without_mark(deployment: Deployment, job_id: str) -> None:
    (dead,) = await deployment.rows("dead_jobs", job_id)
    payload = msgspec.json.decode(dead["payload"], type=TurnPayload)
    record = await deployment.intake.read(job_id)
    assert record is not None
    requeue = Requeue(deployment.commands, deployment.settings)
    done = await requeue(payload, run=2, user_id="u1", created_us=record.created_us, position="end")
    assert done.outcome == "queued"


async def test_a_job_that_redis_lost_after_its_retry_can_be_retried_again(deployment: Deployment, desk: Desk) -> None:
    job_id = await kill(deployment)
    await retry(desk, job_id)
    await deployment.commands.redis.flushdb()
    assert not (await retry(desk, job_id)).repeated
    async with deployment.worker():
        assert (await deployment.ended(job_id)).run == 2


async def test_an_edit_changes_what_is_asked_and_keeps_what_was(
    deployment: Deployment, desk: Desk, database: Database
) -> None:
    job_id = await kill(deployment, metadata={"order": 7})
    await deployment.behave({"match": "doomed", "faults": [{"status": 400, "times": 100}]})
    await retry(desk, job_id, message="What is your name?", agent="sales", metadata={"order": 8})
    async with deployment.worker():
        record = await deployment.ended(job_id)
    assert (record.state, record.agent, record.metadata) == ("succeeded", "sales", {"order": 8})
    assert record.reply is not None
    assert "What is your name?" in record.reply
    detail = await desk.books.find(None, job_id)
    first, second = detail.runs
    assert first.payload is not None
    assert first.retry_payload is not None
    assert (first.payload["message"], first.payload["agent"]) == ("doomed", "support")
    assert (first.retry_payload["message"], first.retry_payload["agent"]) == ("What is your name?", "sales")
    assert (second.run, second.agent, second.payload) == (2, "sales", None)


@pytest.mark.parametrize(
    ("edit", "fields"),
    [
        ({"message": " "}, ["edit/message"]),
        ({"message": "x" * 32_001, "agent": "nobody"}, ["edit/agent", "edit/message"]),
        ({"metadata": {"deep": {"er": 1}}}, ["edit/metadata/deep"]),
    ],
)
async def test_an_edit_obeys_the_rules_of_a_message(
    deployment: Deployment, desk: Desk, edit: dict[str, Any], fields: list[str]
) -> None:
    job_id = await bury(deployment.settings.database_url)
    with pytest.raises(InvalidRequest) as refused:
        await retry(desk, job_id, **edit)
    assert [fault["field"] for fault in refused.value.faults] == fields
    assert await deployment.intake.read(job_id) is None
    assert await desk.books.count(OPEN) == 1


async def test_a_discarded_job_stays_in_the_books_and_is_never_open_again(deployment: Deployment, desk: Desk) -> None:
    job_id = await bury(deployment.settings.database_url)
    for _ in range(2):
        await desk.books.discard(None, job_id, "tests")
    assert await desk.books.page(OPEN, None, 10) == []
    assert [job async for job in desk.retrier.retry_next(OPEN, None, 10, position="end", by="tests")] == []
    with pytest.raises(Conflict) as refused:
        await retry(desk, job_id)
    assert refused.value.code == "dead_job_discarded"
    (listed,) = await desk.books.page(DeadFilter(disposition="discarded"), None, 10)
    assert (listed.resolved_by, listed.retry_run) == ("tests", None)


async def test_a_discard_that_meets_a_retry_waits_and_comes_too_late(
    deployment: Deployment, desk: Desk, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await bury(deployment.settings.database_url)
    discarding: list[asyncio.Task[None]] = []

    async def somebody_waits_for_the_row() -> bool:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(await deployment.books.fetchval(waiting))

    async def requeue(payload: TurnPayload, **how: Any) -> Any:
        discarding.append(asyncio.ensure_future(desk.books.discard(None, job_id, "somebody else")))
        await eventually(somebody_waits_for_the_row)
        return await Requeue(deployment.commands, deployment.settings)(payload, **how)

    monkeypatch.setattr(desk.retrier, "_requeue", requeue)
    await retry(desk, job_id)
    with pytest.raises(Conflict) as late:
        await discarding[0]
    assert late.value.code == "dead_job_retried"
    (dead,) = await deployment.rows("dead_jobs", job_id)
    assert (dead["disposition"], dead["resolved_by"]) == ("retried", "tests")


async def test_a_payload_that_cannot_be_read_is_refused_and_stays_open(deployment: Deployment, desk: Desk) -> None:
    job_id = await bury(deployment.settings.database_url, payload={"message": "alone"})
    with pytest.raises(Conflict) as refused:
        await retry(desk, job_id)
    assert refused.value.code == "payload_unreadable"
    assert await desk.books.count(OPEN) == 1


async def test_a_full_queue_refuses_and_the_row_stays_open(
    deployment: Deployment, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await bury(deployment.settings.database_url)
    await deployment.say("takes the only place")
    full = Requeue(deployment.commands, settings_with(deployment.settings, max_queue_depth=1))
    monkeypatch.setattr(desk.retrier, "_requeue", full)
    with pytest.raises(QueueFull):
        await retry(desk, job_id)
    assert await desk.books.count(OPEN) == 1


@pytest.mark.parametrize("position", ["end", "in_place"])
async def test_in_bulk_a_conversation_keeps_its_order(deployment: Deployment, desk: Desk, position: Any) -> None:
    dsn = deployment.settings.database_url
    jobs = [await bury(dsn, conversation_id="c1", age_s=100 - n) for n in range(5)]
    waiting = await deployment.say("later")
    unreadable = await bury(dsn, payload={})
    handled = []
    after: str | None = None
    while True:
        batch = [one async for one in desk.retrier.retry_next(OPEN, after, 2, position=position, by="tests")]
        handled += batch
        if len(batch) < 2:
            break
        after = batch[-1].job_id
    assert [one.job_id for one in handled] == [*jobs, unreadable]
    assert [one.job_id for one in handled if isinstance(one, Refusal)] == [unreadable]
    expected = [waiting, *jobs] if position == "end" else [*jobs, waiting]
    assert await order(deployment) == expected
    assert await eligible(deployment) == [expected[0]]


def test_an_edit_of_nothing_changes_nothing() -> None:
    assert Edit().changes_nothing
    assert not Edit(metadata={}).changes_nothing
