"""What a request in OpenAI's form adds to a turn, also where turns are merged, killed or run again."""

import msgspec

from ops.dead.requeue import Requeue
from shared.wire import Asked, Said, TurnPayload
from tests.turn.deployment import Deployment

GIVEN = [Said("user", "one"), Said("assistant", "eins")]


async def test_messages_given_along_with_merged_ones_are_seen_and_kept(deployment: Deployment) -> None:
    await deployment.behave({"reply": "{count} {previous} {last}"})
    first = await deployment.say("two", policy="merge", merge_window_s=0.3, asked=Asked(given=GIVEN))
    later = Asked(given=[Said("user", "three"), Said("assistant", "drei")])
    second = await deployment.say("four", policy="merge", merge_window_s=0.0, asked=later)
    async with deployment.worker():
        record = await deployment.ended(second)
        assert (await deployment.ended(first)).state == "merged"
        assert record.reply == "3 three two\n\nfour"
        after = await deployment.say("five")
        said = (await deployment.ended(after)).reply
    assert said is not None
    assert said.startswith("5 four"), "one, two, three and four came before"


async def test_a_caller_bounds_a_reply_and_never_beyond_the_agents_own_bound(deployment: Deployment) -> None:
    await deployment.behave({"output_tokens": 900})
    async with deployment.worker():
        records = [
            await deployment.ended(await deployment.say("hello", asked=Asked(max_output_tokens=bound)))
            for bound in (7, 100_000)
        ]
    assert [record.usage.output_tokens for record in records if record.usage] == [7, 500]
    assert [record.incomplete for record in records] == ["max_output_tokens"] * 2


async def test_a_dead_job_runs_again_with_all_that_was_asked(deployment: Deployment) -> None:
    await deployment.behave({"faults": [{"status": 400}], "reply": "{count} {system}"})
    asked = Asked(given=GIVEN, instructions="Like a pirate.", previous_response_id="resp_1")
    async with deployment.worker():
        job_id = await deployment.say("two", asked=asked)
        dead = await deployment.ended(job_id)
        assert dead.state == "dead"
        (row,) = await deployment.rows("dead_jobs", job_id)
        payload = msgspec.json.decode(row["payload"], type=TurnPayload)
        requeue = Requeue(deployment.commands, deployment.settings)
        await requeue(payload, run=2, user_id="u1", created_us=dead.created_us, position="end")
        record = await deployment.ended(job_id)
    assert record.reply is not None
    assert record.reply.startswith("2 ")
    assert record.reply.endswith("Like a pirate.")
    assert record.asked == asked.shown()
    (question, _) = await deployment.rows("messages", job_id)
    assert msgspec.json.decode(question["asked"], type=Asked) == asked


async def test_a_chats_history_is_not_written_with_its_message(deployment: Deployment) -> None:
    async with deployment.worker():
        job_id = await deployment.say("two", asked=Asked(api="chat", given=GIVEN, instructions="Be kind."))
        await deployment.ended(job_id)
    (question, _) = await deployment.rows("messages", job_id)
    assert msgspec.json.decode(question["asked"], type=Asked) == Asked(api="chat")


async def test_a_message_of_our_own_api_is_written_without(deployment: Deployment) -> None:
    async with deployment.worker():
        job_id = await deployment.say("two")
        await deployment.ended(job_id)
    assert [row["asked"] for row in await deployment.rows("messages", job_id)] == [None, None]
