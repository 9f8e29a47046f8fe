"""A turn from an accepted message to its committed end."""

import asyncio

import msgspec

from shared import keys
from shared.jobs import JobRecord
from shared.scripts import read_events
from sql import queries
from tests.turn.deployment import TENANT, Deployment


async def test_a_message_gets_a_reply_that_the_books_agree_on(deployment: Deployment) -> None:
    async with deployment.worker():
        job_id = await deployment.say("How do I reset my password?", metadata={"ticket": "7"}, domain="help")
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts, record.user_id) == ("succeeded", 1, "u1")
    assert record.reply is not None
    assert "How do I reset my password?" in record.reply

    (call,) = (await deployment.served())["requests"]
    (row,) = await deployment.rows("llm_calls", job_id)
    for tokens in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"):
        assert row[tokens] == call[tokens]
    assert (row["status"], row["estimated"], row["domain"]) == ("ok", False, "help")
    assert row["cost_nano_usd"] == record.cost_nano_usd
    assert row["cost_nano_usd"] > 0
    assert row["unit_prices"]
    messages = await deployment.rows("messages", job_id)
    assert [(m["role"], m["body"]) for m in messages] == [
        ("user", "How do I reset my password?"),
        ("assistant", record.reply),
    ]
    assert len(await deployment.books.fetch("SELECT FROM memory_outbox WHERE job_id = $1", job_id)) == 1


async def test_redis_and_postgres_tell_the_same_of_a_job(deployment: Deployment) -> None:
    async with deployment.worker():
        job_id = await deployment.say("hello", metadata={"a": 1})
        record = await deployment.ended(job_id)
    raw = await deployment.books.fetchval(queries["job_record"], TENANT, job_id)
    assert msgspec.json.decode(raw, type=JobRecord) == record


async def test_one_conversation_is_answered_in_order_and_remembers(deployment: Deployment) -> None:
    async with deployment.worker(), deployment.worker():
        jobs = {
            conversation: [await deployment.say(f"{conversation}-{n}", conversation=conversation) for n in range(6)]
            for conversation in ("a", "b", "c", "d", "e")
        }
        for conversation, job_ids in jobs.items():
            records = [await deployment.ended(job_id) for job_id in job_ids]
            for n, record in enumerate(records):
                assert record.reply is not None
                count = min(n, 5) + 1  # ten messages of history are five turns
                assert f"“{conversation}-{n}”" in record.reply
                assert f"{count} user message" in record.reply
                assert n == 0 or f"“{conversation}-{n - 1}”" in record.reply
            starts = [record.started_us for record in records]
            ends = [record.finished_us for record in records]
            for before, after in zip(ends, starts[1:], strict=False):
                assert before is not None
                assert after is not None
                assert before <= after, "two turns of one conversation ran at once"


async def test_a_stateless_agent_is_given_no_history(deployment: Deployment) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say("one", agent="sales"))
        record = await deployment.ended(await deployment.say("two", agent="sales"))
    assert record.reply is not None
    assert "1 user message" in record.reply


async def test_readers_see_every_token_in_order_and_then_the_end(deployment: Deployment) -> None:
    await deployment.behave({"tokens_per_s": 300, "output_tokens": 120})
    async with deployment.worker():
        job_id = await deployment.say("tell me a long story")
        record = await deployment.ended(job_id)
    newest, events = await read_events(deployment.commands, job_id)
    assert (events[0].type, events[-1].type) == ("job.started", "job.ended")
    assert [event.seq for event in events] == list(range(1, newest + 1))
    deltas = [msgspec.json.decode(event.data)["delta"] for event in events if event.type == "message.delta"]
    assert "".join(deltas) == record.reply
    assert 3 <= len(deltas) <= 20, "0.4 s of text at no more than 20 pieces a second"


async def test_a_caller_that_names_no_user_speaks_for_the_owner_of_the_conversation(deployment: Deployment) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say("I am ada", user="ada"))
        record = await deployment.ended(await deployment.say("who am I?", user=None))
    assert record.user_id == "ada"
    assert await deployment.books.fetchval("SELECT count(*) FROM users") == 1


async def test_another_user_of_a_conversation_is_refused_also_when_redis_forgot_its_owner(
    deployment: Deployment,
) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say("mine", user="ada"))
        await deployment.commands.redis.delete(keys.owner(TENANT, "c1"))
        record = await deployment.ended(await deployment.say("let me see", user="eve"))
    assert record.state == "rejected"
    assert record.error is not None
    assert record.error.code == "conversation_owner"
    assert (await deployment.served())["calls"] == 1


async def test_a_thousand_waiting_turns_fit_in_one_worker(deployment: Deployment) -> None:
    await deployment.behave({"gather": 1_000, "output_tokens": 5})
    jobs = await asyncio.gather(*(deployment.say("hi", conversation=f"c{n}", user=None) for n in range(1_000)))
    patient = {"lease_s": 60, "model_idle_timeout_s": 400, "model_timeout_s": 400}
    async with deployment.worker(worker_concurrency=1_000, **patient):
        records = [await deployment.ended(job_id, 400) for job_id in jobs]
    assert {record.state for record in records} == {"succeeded"}
    served = await deployment.served()
    assert (served["calls"], served["concurrency_peak"]) == (1_000, 1_000)
