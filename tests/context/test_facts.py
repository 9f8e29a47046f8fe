"""Facts and the profile, from what a user tells to what the model is shown, through the real worker and servers."""

import msgspec
import pytest

from tests.conftest import Eventually
from tests.context.conftest import NANO, Remembering
from workers.background import runner

MINI = "gpt-5.4-mini"

pytestmark = pytest.mark.usefixtures("quick")


async def test_what_a_user_tells_is_kept_with_its_source_and_shown_to_the_model(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave({"model": "gpt-5.4-mini", "reply": "{previous}"}, {})
    async with deployment.worker(), deployment.memory():
        await deployment.talk("Hello, my name is Ada and I live in Lisbon. I like short answers.")
        await deployment.take_in()
        task = await deployment.task("facts")
        quiet_s = (task["due_at"] - await deployment.books.fetchval("SELECT now()")).total_seconds()
        assert 50 < quiet_s <= 60, "somebody looks when the user is quiet for a minute"
        await deployment.hurry()
        await eventually(lambda: deployment.idle("facts"))
        (seen,) = await deployment.talk("What do you know?", conversation="c2")
    assert "name: Ada\nprefers_concise: yes" in seen
    assert "Lives in Lisbon. (since 20" in seen
    (lives, _likes) = sorted(await deployment.facts(), key=lambda fact: str(fact["topic"]))
    said = await deployment.books.fetchval("SELECT message_id FROM messages WHERE role = 'user' ORDER BY seq LIMIT 1")
    assert (lives["topic"], lives["body"], lives["sources"], lives["told_by"]) == (
        "home_city",
        "Lives in Lisbon.",
        [said],
        "user",
    )
    profile = msgspec.json.decode(await deployment.books.fetchval("SELECT profile FROM users WHERE user_id = 'u1'"))
    assert profile["name"]["value"] == "Ada"
    assert profile["name"]["sources"] == [str(said)]
    (call,) = await deployment.calls("facts")
    assert call["status"] == "ok"


async def test_what_changes_closes_what_was_and_nothing_is_overwritten(
    deployment: Remembering, eventually: Eventually
) -> None:
    async with deployment.worker(), deployment.memory():
        for text in ("I live in Lisbon.", "I now live in Porto.", "As I said, I live in Porto."):
            await deployment.talk(text)
            await deployment.take_in()
            await deployment.hurry()
            await eventually(lambda: deployment.idle("facts"))
    before, now = await deployment.facts()
    assert (before["body"], now["body"]) == ("Lives in Lisbon.", "Lives in Porto.")
    assert before["valid_to"] == now["valid_from"]
    assert (before["superseded_by"], now["valid_to"]) == (now["fact_id"], None)


async def test_what_is_found_late_is_history_already(deployment: Remembering, eventually: Eventually) -> None:
    async with deployment.worker():
        await deployment.talk("I live in Lisbon.", conversation="older")
        await deployment.talk("I live in Porto.", conversation="newer")
    await deployment.take_in()
    async with deployment.worker(), deployment.memory():
        for conversation in ("newer", "older"):
            due = "UPDATE memory_tasks SET due_at = now() WHERE conversation_id = $1 AND kind = 'facts'"
            await deployment.books.execute(due, conversation)

            async def looked(which: str = conversation) -> bool:
                return bool((await deployment.task("facts", which))["done_seq"])

            await eventually(looked)
    before, now = await deployment.facts()
    assert (before["body"], now["body"], now["valid_to"]) == ("Lives in Lisbon.", "Lives in Porto.", None)
    assert (before["valid_to"], before["superseded_by"]) == (now["valid_from"], now["fact_id"])


async def test_an_answer_that_is_none_is_given_up_and_later_messages_still_count(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave(
        {"model": NANO, "match": "nonsense", "reply": "I'd rather not."}, {"model": MINI, "reply": "yes"}, {}
    )
    async with deployment.worker(), deployment.memory():
        await deployment.talk("nonsense")
        await deployment.take_in()
        for _ in range(runner.MAX_ATTEMPTS):
            await deployment.hurry()
            tried = len(await deployment.calls("facts")) + 1

            async def again(wanted: int = tried) -> bool:
                task = await deployment.task("facts")
                return len(await deployment.calls("facts")) >= wanted and task["lease_until"] is None

            await eventually(again)
        task = await deployment.task("facts")
        assert (task["due_at"], task["done_seq"]) == (None, 2)
        await deployment.talk("I live in Faro.")
        await deployment.take_in()
        await deployment.hurry()
        await eventually(deployment.facts)
    assert [fact["body"] for fact in await deployment.facts()] == ["Lives in Faro."]
    assert len(await deployment.calls("facts")) == runner.MAX_ATTEMPTS + 1


async def test_a_tenant_that_wants_no_facts_has_none(deployment: Remembering) -> None:
    await deployment.memory_settings(facts=False)
    async with deployment.worker():
        await deployment.talk("I live in Lisbon.")
    await deployment.take_in()
    assert (await deployment.task("facts"))["due_at"] is None


async def test_somebody_without_a_name_is_summed_up_and_no_more(deployment: Remembering) -> None:
    async with deployment.worker():
        await deployment.talk("I live in Lisbon.", user=None)
    await deployment.take_in()
    assert await deployment.task("facts") == {}
    assert await deployment.task("summary") != {}
