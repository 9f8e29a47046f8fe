"""Erasing, step by step: what is gone, what stays, and who is left alone."""

import json

from ops.users.erasing import Eraser
from ops.users.whom import Whom
from tests.forgetting.searching import Everywhere
from tests.turn.deployment import TENANT, Deployment

CANARY, USER = "zorblax-quench-7719", "u-canary-55aa"


def a_user(user: str = USER) -> Whom:
    return Whom(tenant=TENANT, user=user, conversations=[])


async def state_of(deployment: Deployment, job_id: str) -> str | None:
    record = await deployment.intake.read(job_id)
    return record and record.state.value


async def erase(eraser: Eraser, whom: Whom) -> dict[str, int]:
    request = await eraser.begin(whom, "tests")
    done = await eraser.finish(whom, request, "tests")
    assert done is not None
    assert done.done
    return done.counts


async def test_nothing_is_left_of_ended_turns_but_the_money(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    async with deployment.worker():
        for conversation in ("c1", "c2"):
            await deployment.ended(await deployment.say(CANARY, user=USER, conversation=conversation))
        await deployment.ended(await deployment.say("somebody else", user="u2", conversation="c3"))
        before = await deployment.ledger()
        assert await everywhere.find(CANARY, USER)
        counts = await erase(eraser, a_user())
        assert {name: counts[name] for name in ("messages", "jobs", "llm_calls", "redis_jobs")} == {
            "messages": 4, "jobs": 2, "llm_calls": 2, "redis_jobs": 2
        }  # fmt: skip
        assert await everywhere.find(CANARY, USER) == []
    after = await deployment.ledger()
    assert [row["cost_nano_usd"] for row in after] == [row["cost_nano_usd"] for row in before]
    assert [row["user_id"] for row in after] == [None, None, "u2"]
    assert [row["conversation_id"] for row in after] == ["", "", "c3"]
    await deployment.check_money()
    assert await everywhere.find("somebody else")


async def test_from_its_beginning_on_no_turn_reads_what_was_said_before(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    """Whatever else is still to be done, and whoever does it."""
    await deployment.behave({"reply": "before: {previous}"})
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=USER))
        whom = a_user()
        request = await eraser.begin(whom, "tests")
        fenced_us = await eraser._flight.now_us()
        record = await deployment.ended(await deployment.say("hello again", user=USER))
        assert record.reply is not None
        assert CANARY not in record.reply
        assert await eraser.finish(whom, request, "tests", fenced_us)
    assert await everywhere.find(CANARY) == []
    assert len(await deployment.rows("messages", record.id)) == 2


async def learn(deployment: Deployment, conversation: str, topic: str, entry: str) -> None:
    """As the task of a conversation writes it, from what was said first."""
    said = "SELECT message_id::text FROM messages WHERE conversation_id = $1 ORDER BY seq LIMIT 1"
    source = await deployment.books.fetchval(said, conversation)
    entries = json.dumps({entry: {"value": f"{entry} of {conversation}", "sources": [source]}})
    await deployment.books.execute("SELECT note_profile($1, $2, $3, 'user')", TENANT, USER, entries)
    fact = "SELECT note_fact($1, $2, $3, $4, $5, ARRAY[$6]::uuid[], 'user', now())"
    await deployment.books.execute(fact, TENANT, USER, topic, f"{topic} of {conversation}", conversation, source)


async def test_what_was_learnt_in_a_conversation_goes_with_it(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    gone, kept = "conv-7d0e", "conv-41b9"
    async with deployment.worker():
        for conversation in (gone, kept):
            await deployment.ended(await deployment.say("hello", user=USER, conversation=conversation))
    await learn(deployment, gone, "home_city", "name")
    await learn(deployment, kept, "shoe_size", "language")
    by_hand = json.dumps({"prefers_concise": {"value": "yes"}})
    await deployment.books.execute("SELECT note_profile($1, $2, $3, 'ada')", TENANT, USER, by_hand)
    counts = await erase(eraser, Whom(tenant=TENANT, user=None, conversations=[gone]))
    assert (counts["user_facts"], counts["profiles"]) == (1, 1)
    assert await everywhere.find(gone) == []
    profile = json.loads(await deployment.books.fetchval("SELECT profile FROM users WHERE user_id = $1", USER))
    assert set(profile) == {"language", "prefers_concise"}
    assert await deployment.books.fetchval("SELECT array_agg(body) FROM user_facts") == [f"shoe_size of {kept}"]
