"""What becomes of messages that arrive while their conversation has unfinished ones."""

import signal
from typing import Any

import msgspec
import pytest

from ops.dead.requeue import Requeue
from shared import keys
from shared.config import Settings
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.wire import TurnPayload
from sql import queries
from tests.conftest import Eventually
from tests.turn.deployment import TENANT, Deployment
from tests.turn.test_killed_worker import doomed_worker
from workers.turn.retry import RetryPolicy

LONG = {"match": "long", "tokens_per_s": 5, "output_tokens": 400}
A_MINUTE = RetryPolicy(max_attempts=4, base_s=60, cap_s=60, horizon_s=120, draw=lambda _low, high: high)
"""Between attempts, as long as nobody hurries them."""


async def merge(deployment: Deployment, message: str, window_s: float = 0.2, **fields: Any) -> str:
    return await deployment.say(message, policy="merge", merge_window_s=window_s, **fields)


async def merge_all(deployment: Deployment, *messages: str, **fields: Any) -> list[str]:
    """Each but the last waits longer than it takes to say the next one."""
    *first, last = messages
    return [*[await merge(deployment, text, 10, **fields) for text in first], await merge(deployment, last, **fields)]


async def speaking(deployment: Deployment, eventually: Eventually, job_id: str) -> None:
    """Returns when readers of the job see its reply grow."""

    async def said() -> bool:
        return bool(await deployment.deltas(job_id))

    await eventually(said)


async def transcript(deployment: Deployment, conversation: str = "c1") -> list[str]:
    rows = await deployment.books.fetch(
        "SELECT role, body FROM messages WHERE conversation_id = $1 ORDER BY seq", conversation
    )
    return [row["body"] if row["role"] == "user" else "<reply>" for row in rows]


async def booked(deployment: Deployment, job_id: str) -> JobRecord:
    raw = await deployment.books.fetchval(queries["job_record"], TENANT, job_id)
    return msgspec.json.decode(raw, type=JobRecord)


async def nothing_is_left(deployment: Deployment) -> bool:
    names = [name.decode() for name in await deployment.commands.redis.keys("*")]
    live = ("sb:taken", "sb:conv", "arq:job", "arq:queue:debounce", "arq:queue:expiry", "arq:queue:heads")
    return not [name for name in names if name.startswith(live)] and not await deployment.commands.redis.xlen(
        keys.ENDED
    )


async def test_three_short_messages_in_a_row_get_one_answer(deployment: Deployment) -> None:
    async with deployment.worker():
        jobs = await merge_all(deployment, "hi", "I have a question", "where is my order?")
        records = [await deployment.ended(job_id) for job_id in jobs]
    survivor = records[-1]
    assert [record.state for record in records] == ["merged", "merged", "succeeded"]
    assert [record.merged_into for record in records] == [survivor.id, survivor.id, None]
    assert {record.reply for record in records} == {survivor.reply}
    assert survivor.reply is not None
    for text in ("hi", "I have a question", "where is my order?"):
        assert text in survivor.reply, "all of it is answered"
    assert (await deployment.served())["calls"] == 1
    assert [record.cost_nano_usd for record in records[:2]] == [None, None], "only the survivor bills"
    assert await transcript(deployment) == ["hi", "I have a question", "where is my order?", "<reply>"]
    assert await nothing_is_left(deployment)


async def test_the_books_tell_the_same_of_merged_messages_as_redis(deployment: Deployment) -> None:
    async with deployment.worker():
        jobs = await merge_all(deployment, "one", "two", metadata={"n": 1})
        for job_id in jobs:
            record, row = await deployment.ended(job_id), await booked(deployment, job_id)
            assert (row.state, row.merged_into, row.reply, row.finished_us, row.metadata, row.user_id) == (
                record.state,
                record.merged_into,
                record.reply,
                record.finished_us,
                record.metadata,
                record.user_id,
            )
    ttls = [await deployment.commands.redis.ttl(keys.job(job_id)) for job_id in jobs]
    assert all(0 < ttl_s <= deployment.settings.result_ttl_s for ttl_s in ttls)


async def test_messages_that_arrive_while_one_runs_are_answered_together_after_it(
    deployment: Deployment, eventually: Eventually
) -> None:
    await deployment.behave({"match": "long", "held": True})
    async with deployment.worker():
        running = await merge(deployment, "a long one", 0)
        await eventually(deployment.under_way)
        pending = [await merge(deployment, text, 0) for text in ("and", "then")]
        await deployment.behave()
        first, *rest = [await deployment.ended(job_id) for job_id in (running, *pending)]
    assert [record.state for record in (first, *rest)] == ["succeeded", "merged", "succeeded"]
    assert (await deployment.served())["calls"] == 2
    assert await transcript(deployment) == ["a long one", "<reply>", "and", "then", "<reply>"]


async def test_the_set_is_frozen_at_its_first_claim(
    deployment: Deployment, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry answers the same messages again; one that comes meanwhile is not among them."""
    await deployment.behave({"match": "one", "faults": [{"status": 500}]}, {})
    monkeypatch.setattr(RetryPolicy, "of", lambda _settings: A_MINUTE)
    async with deployment.worker():
        jobs = await merge_all(deployment, "one", "two")

        async def retrying() -> bool:
            record = await deployment.intake.read(jobs[1])
            return record is not None and record.state == "retrying"

        await eventually(retrying)
        late = await merge(deployment, "three", 0)
        await deployment.hurry(jobs[1])
        records = [await deployment.ended(job_id) for job_id in (*jobs, late)]
    assert [record.state for record in records] == ["merged", "succeeded", "succeeded"]
    assert records[1].attempts == 2
    assert await transcript(deployment) == ["one", "two", "<reply>", "three", "<reply>"]


async def test_merging_stops_at_another_agent_and_at_a_message_that_wants_its_own_answer(
    deployment: Deployment,
) -> None:
    await merge(deployment, "to support")
    to_sales = await merge(deployment, "to sales", agent="sales")
    plain = await deployment.say("as it comes", agent="sales")
    last = await merge(deployment, "last", agent="sales")
    async with deployment.worker():
        states = [(await deployment.ended(job_id)).state for job_id in (to_sales, plain, last)]
    assert states == ["succeeded", "succeeded", "succeeded"]
    assert (await deployment.served())["calls"] == 4


async def test_a_survivor_that_never_starts_takes_the_merged_ones_to_the_books(
    deployment: Deployment, eventually: Eventually
) -> None:
    jobs = [await merge(deployment, text, 5) for text in ("one", "two", "three")]
    assert await deployment.intake.cancel(TENANT, jobs[0]) == "ended", "it is merged already"
    assert await deployment.intake.cancel(TENANT, jobs[2]) == "cancelled"
    records = [await deployment.ended(job_id) for job_id in jobs]
    assert [record.state for record in records] == ["merged", "merged", "cancelled"]
    assert {record.error.code for record in records if record.error} == {"cancelled"}
    async with deployment.worker():

        async def all_booked() -> bool:
            return len(await deployment.books.fetch("SELECT FROM jobs")) == 3

        await eventually(all_booked)
    assert await transcript(deployment) == ["one", "two", "three"]
    assert (await booked(deployment, jobs[0])).merged_into == jobs[2]
    assert await nothing_is_left(deployment)


async def test_an_interruption_stops_the_running_turn_and_takes_in_what_waits(
    deployment: Deployment, eventually: Eventually
) -> None:
    await deployment.behave(LONG, {})
    async with deployment.worker():
        running = await deployment.say("a long one")
        waiting = [await deployment.say(text) for text in ("and this", "and that")]
        await speaking(deployment, eventually, running)
        newest = await deployment.say("no, stop!", policy="interrupt")
        for job_id in waiting:
            cancelled = await deployment.intake.read(job_id)
            assert cancelled is not None
            assert (cancelled.state, cancelled.over) == ("cancelled", True), "at once"
        records = [await deployment.ended(job_id) for job_id in (running, *waiting, newest)]
    assert [record.state for record in records] == ["cancelled", "cancelled", "cancelled", "succeeded"]
    assert records[-1].reply is not None
    assert "4 user message" in records[-1].reply, "the model knows what was said before"
    assert await transcript(deployment) == ["a long one", "and this", "and that", "no, stop!", "<reply>"]
    for record in records[1:3]:
        row = await booked(deployment, record.id)
        assert (row.state, row.error, row.finished_us) == ("cancelled", record.error, record.finished_us)
    assert await nothing_is_left(deployment)


async def test_an_interruption_also_stops_what_was_to_be_merged(deployment: Deployment) -> None:
    jobs = [await merge(deployment, text, 5) for text in ("one", "two", "three")]
    jobs.append(await deployment.say("no, stop!", policy="interrupt"))
    async with deployment.worker():
        records = [await deployment.ended(job_id) for job_id in jobs]
    assert [record.state for record in records] == ["cancelled", "cancelled", "cancelled", "succeeded"]
    assert [record.merged_into for record in records] == [None] * 4
    assert records[-1].reply is not None
    assert "“no, stop!”" in records[-1].reply, "the others are history"
    assert "4 user message" in records[-1].reply
    assert await transcript(deployment) == ["one", "two", "three", "no, stop!", "<reply>"]


async def test_an_interrupted_message_owes_its_event_and_a_merged_one_leaves_it_to_its_survivor(
    deployment: Deployment,
) -> None:
    first = await deployment.say("first", callback_url="https://example.com/1")
    await merge(deployment, "second", 0, callback_url="https://example.com/2", conversation="c2")
    third = await merge(deployment, "third", 0, callback_url="https://example.com/3", conversation="c2")
    newest = await deployment.say("stop", policy="interrupt", callback_url="https://example.com/4")
    async with deployment.worker():
        for job_id in (third, newest):
            await deployment.ended(job_id)
    rows = await deployment.books.fetch(
        "SELECT job_id::text, event_type, sequence FROM deliveries ORDER BY conversation_id, sequence"
    )
    assert [tuple(row) for row in rows] == [
        (first, "job.cancelled", 1),
        (newest, "job.succeeded", 2),
        (third, "job.succeeded", 1),
    ]


async def test_messages_merged_into_a_rejected_one_are_rejected_each_by_itself(deployment: Deployment) -> None:
    jobs = [await merge(deployment, text, 0) for text in ("one", "two")]
    payload = b'{"t":null,"f":"turn","a":[],"k":{"payload":{"job_id":"x","words":"of another version"}},"et":0}'
    await deployment.commands.redis.set(keys.arq_job(jobs[1]), payload)
    async with deployment.worker():
        records = [await deployment.ended(job_id) for job_id in jobs]
    assert [(record.state, record.merged_into) for record in records] == [("rejected", None)] * 2
    for record in records:
        row = await booked(deployment, record.id)
        assert (row.state, row.error, row.merged_into) == ("rejected", record.error, None)
    (kept,) = await deployment.rows("dead_jobs", jobs[0])
    assert msgspec.json.decode(kept["payload"], type=TurnPayload).message == "one", "an operator can retry it"


@pytest.mark.parametrize("agent", ["support", "sales"])
async def test_a_dead_set_is_retried_as_the_whole_question_once(
    deployment: Deployment, settings: Settings, agent: str
) -> None:
    await deployment.behave({"match": "two", "faults": [{"status": 400, "times": 1}]})
    jobs = [await merge(deployment, text, 0, agent=agent) for text in ("one", "two")]
    async with deployment.worker():
        dead = await deployment.ended(jobs[1])
        (row,) = await deployment.rows("dead_jobs", jobs[1])
        payload = msgspec.json.decode(row["payload"], type=TurnPayload)
        requeue = Requeue(deployment.commands, settings)
        await requeue(payload, run=2, user_id="u1", created_us=dead.created_us, position="end")
        again = await deployment.ended(jobs[1])
    assert (dead.state, again.state, again.run) == ("dead", "succeeded", 2)
    assert again.reply is not None
    assert "one" in again.reply
    assert "1 user message" in again.reply, "the merged one is part of the question, not of the history as well"
    assert (await booked(deployment, jobs[0])).reply == again.reply


async def test_what_ended_behind_a_running_turn_comes_after_it_in_the_history(
    deployment: Deployment, eventually: Eventually
) -> None:
    await deployment.behave({"match": "long", "held": True})
    async with deployment.worker():
        running = await deployment.say("a long one")
        await eventually(deployment.under_way)
        follower = await deployment.say("never mind")
        assert await deployment.intake.cancel(TENANT, follower) == "cancelled"
        await deployment.ended(await deployment.say("elsewhere", conversation="c2"))  # its worker looked at the ends
        assert await transcript(deployment) == []
        await deployment.behave()
        await deployment.ended(running)

        async def written() -> bool:
            return bool(await deployment.rows("jobs", follower))

        await eventually(written)
    assert await transcript(deployment) == ["a long one", "<reply>", "never mind"]


async def test_the_owner_of_a_conversation_is_known_from_messages_that_never_started(
    deployment: Deployment, eventually: Eventually
) -> None:
    await merge(deployment, "mine", 5, user="ada")
    survivor = await merge(deployment, "and this", 5, user=None)
    assert await deployment.intake.cancel(TENANT, survivor) == "cancelled"
    async with deployment.worker():

        async def owned() -> bool:
            return bool(await deployment.books.fetchval("SELECT user_id = 'ada' FROM conversations"))

        await eventually(owned)


async def test_an_interruption_ends_a_wait_for_a_retry(
    deployment: Deployment, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "of", lambda _settings: A_MINUTE)
    await deployment.behave({"match": "first", "faults": [{"status": 500}]}, {})
    async with deployment.worker():
        first = await deployment.say("first")

        async def retrying() -> bool:
            record = await deployment.intake.read(first)
            return record is not None and record.state == "retrying"

        await eventually(retrying)
        second = await deployment.say("second", policy="interrupt")
        states = [(await deployment.ended(job_id)).state for job_id in (first, second)]
    assert states == ["cancelled", "succeeded"]


async def test_a_busy_conversation_rejects_and_an_idle_one_does_not(deployment: Deployment) -> None:
    payload = TurnPayload(
        job_id=uuid7(), tenant=TENANT, agent="support", conversation_id="c1", user_id="u1", message="second"
    )
    first = await deployment.say("first", policy="reject")
    refused = await deployment.intake.admit(payload, ttl_s=60, enqueued_ms=0, policy="reject")
    assert refused.outcome == "busy"
    assert await deployment.intake.read(payload.job_id) is None, "a refusal leaves nothing"
    async with deployment.worker():
        await deployment.ended(first)
        assert (await deployment.intake.admit(payload, ttl_s=60, enqueued_ms=0, policy="reject")).outcome == "accepted"
        assert (await deployment.ended(payload.job_id)).state == "succeeded"


async def test_hooks_hear_of_jobs_that_never_started(deployment: Deployment, eventually: Eventually) -> None:
    heard: list[tuple[str, int, str]] = []

    async def after(ctx: dict[Any, Any]) -> None:
        heard.append((ctx["job_id"], ctx["job_try"], ctx["state"]))

    first, second = [await merge(deployment, text, 10) for text in ("one", "two")]
    async with deployment.worker() as worker:
        worker.after_job_end = after
        assert await deployment.intake.cancel(TENANT, second) == "cancelled"

        async def told() -> bool:
            return len(heard) == 2

        await eventually(told)
    assert heard == [(first, 0, "merged"), (second, 0, "cancelled")]


@pytest.mark.parametrize("point", ["claimed", "streaming", "answered", "committed", "finishing", "finished"])
async def test_a_killed_workers_merged_messages_are_answered_once(
    deployment: Deployment, settings: Settings, eventually: Eventually, point: str
) -> None:
    jobs = [await merge(deployment, text, 0.05) for text in ("one", "two", "three")]
    async with doomed_worker(settings, point, "SIGKILL") as process:
        assert await process.wait() == -signal.SIGKILL
    await deployment.end_leases()
    async with deployment.worker():
        records = [await deployment.ended(job_id) for job_id in jobs]
    assert [record.state for record in records] == ["merged", "merged", "succeeded"]
    assert {record.reply for record in records} == {records[-1].reply}
    assert await transcript(deployment) == ["one", "two", "three", "<reply>"]
    assert [row["state"] for job_id in jobs for row in await deployment.rows("jobs", job_id)] == [
        "merged",
        "merged",
        "succeeded",
    ]

    async def clean() -> bool:
        return await nothing_is_left(deployment)

    await eventually(clean)
