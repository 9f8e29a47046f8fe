"""Cancelling: queued, waiting for a retry, or in the middle of a model call."""

from tests.conftest import Eventually
from tests.turn.deployment import TENANT, Deployment


async def test_a_running_turn_is_stopped_and_what_it_cost_is_booked(
    deployment: Deployment, eventually: Eventually
) -> None:
    await deployment.behave({"match": "long", "tokens_per_s": 5, "output_tokens": 400})
    async with deployment.worker():
        job_id = await deployment.say("a long one")
        follower = await deployment.say("next")

        async def speaking() -> bool:
            return bool(await deployment.deltas(job_id))

        await eventually(speaking)
        assert await deployment.intake.cancel(TENANT, job_id) == "requested"
        record, after = await deployment.ended(job_id), await deployment.ended(follower)

        async def stopped() -> bool:
            return (await deployment.served())["requests"][0]["status"] == "aborted"

        await eventually(stopped)
    assert (record.state, record.reply, after.state) == ("cancelled", None, "succeeded")
    (row,) = await deployment.rows("llm_calls", job_id)
    assert (row["status"], row["estimated"]) == ("aborted", True)
    assert 0 < row["output_tokens"] < 400
    assert record.cost_nano_usd == row["cost_nano_usd"]
    assert [m["role"] for m in await deployment.rows("messages", job_id)] == ["user"]
    assert after.reply is not None
    assert "2 user message" in after.reply, "its message stays in the history"


async def test_a_queued_message_is_cancelled_at_once_and_reaches_the_books(
    deployment: Deployment, eventually: Eventually
) -> None:
    first = await deployment.say("first")
    second = await deployment.say("second")
    third = await deployment.say("third")
    assert await deployment.intake.cancel(TENANT, second) == "cancelled"
    assert (await deployment.ended(second)).state == "cancelled"
    async with deployment.worker():
        records = [await deployment.ended(job_id) for job_id in (first, third)]

        async def booked() -> bool:
            return bool(await deployment.rows("jobs", second))

        await eventually(booked)
    assert [record.state for record in records] == ["succeeded", "succeeded"]
    assert (await deployment.rows("jobs", second))[0]["state"] == "cancelled"
    assert await deployment.commands.redis.xlen("sb:ended") == 0
    assert (await deployment.served())["calls"] == 2


async def test_a_turn_that_waits_for_its_retry_ends_without_waiting(
    deployment: Deployment, eventually: Eventually
) -> None:
    await deployment.behave({"faults": [{"status": 429, "retry_after_s": 60}]})
    async with deployment.worker():
        job_id = await deployment.say("hello")

        async def waiting() -> bool:
            record = await deployment.intake.read(job_id)
            return record is not None and record.state == "retrying"

        await eventually(waiting)
        assert await deployment.intake.cancel(TENANT, job_id) == "requested"
        record = await deployment.ended(job_id)
    assert record.state == "cancelled"
    assert (await deployment.served())["calls"] == 1


async def test_nobody_else_can_cancel_and_an_ended_job_stays_as_it_is(deployment: Deployment) -> None:
    async with deployment.worker():
        job_id = await deployment.say("hello")
        assert await deployment.intake.cancel("another-tenant", job_id) == "unknown"
        await deployment.ended(job_id)
        assert await deployment.intake.cancel(TENANT, job_id) == "ended"
    assert await deployment.intake.cancel(TENANT, "01a1fd27-60c5-74e7-b4ff-4d8275004fae") == "unknown"
