"""Summaries and facts, from what was said to what the model is shown, through the real worker and servers."""

import asyncio
import signal
import sys
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from shared.errors import Unavailable
from tests.conftest import START_S, Eventually
from tests.context.conftest import Remembering
from tests.turn.deployment import TENANT, environment_of
from workers.background import runner
from workers.background.money import Account
from workers.background.tasks import TaskStore

NANO, MINI = "gpt-5.4-nano", "gpt-5.4-mini"
SHOES = {"model": NANO, "reply": "They talked about shoes."}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_S", 0.02)


async def calls(deployment: Remembering, kind: str) -> list[dict[str, Any]]:
    rows = await deployment.books.fetch("SELECT * FROM llm_calls WHERE kind = $1 ORDER BY call_id", kind)
    return [dict(row) for row in rows]


async def long_talk(deployment: Remembering, turns: int = 11) -> None:
    await deployment.memory_settings(facts=False)
    async with deployment.worker():
        await deployment.talk(*(f"message {n}" for n in range(turns)))
    await deployment.take_in()


async def test_a_long_conversation_is_summed_up_but_for_its_newest_messages(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave(SHOES, {"reply": "{previous}."})
    await long_talk(deployment)
    async with deployment.worker(), deployment.memory():
        made = await eventually(deployment.summary)
        assert (made["body"], made["upto_seq"], made["user_id"]) == ("They talked about shoes.", 12, "u1")
        await eventually(lambda: idle(deployment, "summary"))
        (seen,) = await deployment.talk("and now?")
    assert seen.startswith("<remembered>")
    assert "<summary>\nThey talked about shoes.\n</summary>" in seen
    (call,) = await calls(deployment, "summary")
    assert (call["status"], call["agent"], call["conversation_id"], call["user_id"]) == ("ok", "support", "c1", "u1")
    assert call["cost_nano_usd"] > 0
    served = [request for request in (await deployment.served())["requests"] if request["model"] == NANO]
    assert len(served) == 1


async def idle(deployment: Remembering, kind: str) -> bool:
    task = await deployment.task(kind)
    return bool(task) and task["due_at"] is None and task["lease_until"] is None


async def test_twenty_messages_need_no_summary(deployment: Remembering) -> None:
    await long_talk(deployment, turns=10)
    assert (await deployment.task("summary"))["due_at"] is None
    await deployment.memory_settings(summary_after=19)
    async with deployment.worker():
        await deployment.talk("one more", conversation="c2")
        await deployment.talk("and one here")
    await deployment.take_in()
    assert (await deployment.task("summary"))["due_at"] is not None
    assert (await deployment.task("summary", "c2"))["due_at"] is None


async def test_the_next_summary_is_made_of_the_last_one_and_what_came_since(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave(SHOES)
    await long_talk(deployment)
    async with deployment.worker(), deployment.memory():
        await eventually(deployment.summary)
    await deployment.behave({"model": NANO, "reply": "{last}"}, {"reply": "yes"})
    await long_talk(deployment)
    async with deployment.worker(), deployment.memory():

        async def later() -> dict[str, Any] | None:
            found = await deployment.summary()
            return found if found and found["upto_seq"] == 34 else None

        made = await eventually(later)
    asked = msgspec.json.decode(made["body"])
    assert asked["summary_so_far"] == "They talked about shoes."
    assert len(asked["messages"]) == 22
    assert asked["messages"][0] == {"by": "user", "text": "message 6"}


async def test_too_much_for_one_call_is_summed_up_in_several(deployment: Remembering, eventually: Eventually) -> None:
    await deployment.behave(SHOES, {"reply": "yes"})
    async with deployment.worker():
        await deployment.talk(*(f"message {n} " + "lorem ipsum " * 400 for n in range(18)))
    await deployment.take_in()
    async with deployment.worker(), deployment.memory():

        async def all_of_it() -> dict[str, Any] | None:
            found = await deployment.summary()
            return found if found and await idle(deployment, "summary") else None

        made = await eventually(all_of_it)
    assert 36 - 20 <= made["upto_seq"] <= 26
    made_calls = await calls(deployment, "summary")
    assert len(made_calls) > 1
    assert all(call["input_tokens"] < 4_000 for call in made_calls)


async def test_a_failure_keeps_the_old_summary_and_is_tried_again_later(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave(SHOES)
    await long_talk(deployment)
    async with deployment.worker(), deployment.memory():
        await eventually(deployment.summary)
        await eventually(lambda: idle(deployment, "summary"))
    await deployment.behave({"model": NANO, "faults": [{"status": 500}], "reply": "Newer."}, {})
    await long_talk(deployment)
    async with deployment.worker(), deployment.memory():

        async def failed() -> dict[str, Any] | None:
            task = await deployment.task("summary")
            return task if task["error"] else None

        task = await eventually(failed)
        assert msgspec.json.decode(task["error"])["code"] == "upstream_unavailable"
        now = await deployment.books.fetchval("SELECT now()")
        assert timedelta(seconds=15) < task["due_at"] - now < timedelta(seconds=60)
        kept = await deployment.summary()
        assert kept is not None
        assert kept["body"] == "They talked about shoes."
        await deployment.hurry()
        await eventually(lambda: idle(deployment, "summary"))
    kept = await deployment.summary()
    assert kept is not None
    assert kept["body"] == "Newer."
    assert (await deployment.task("summary"))["error"] is None
    assert [call["status"] for call in await calls(deployment, "summary")] == ["ok", "error", "ok"]


async def test_a_killed_workers_task_is_done_by_another_one_and_every_call_is_paid_for(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave({**SHOES, "faults": ["hang"]}, {})
    await long_talk(deployment)
    given = {"SWITCHBOARD_OPS_DATABASE_URL": deployment.ops, "SWITCHBOARD_EMBEDDING_MODEL": "none"}
    environment = environment_of(deployment.settings) | given  # nobody would take embeddings over
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ops", "delivery", env=environment)
    try:
        await eventually(lambda: deployment.commands.redis.keys("sb:calls:*"), START_S)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await deployment.summary() is None
    await deployment.behave(SHOES)
    await deployment.books.execute("UPDATE memory_tasks SET lease_until = now()")
    async with deployment.worker(), deployment.memory():
        made = await eventually(deployment.summary)
        await eventually(lambda: idle(deployment, "summary"))
    assert made["body"] == "They talked about shoes."
    first, second = await calls(deployment, "summary")
    assert (first["status"], first["estimated"], first["attempt"]) == ("lost", True, 1)
    assert first["input_tokens"] > 0
    assert (second["status"], second["attempt"]) == ("ok", 2)


@pytest.mark.parametrize("kind", ["summary", "facts"])
async def test_what_is_booked_is_written_and_never_asked_for_again(
    deployment: Remembering, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its worker is gone at the moment when the ledger has the call, and Redis still holds money for it."""
    if kind == "summary":
        await deployment.behave(SHOES, {})
        await long_talk(deployment)
    else:
        async with deployment.worker():
            await deployment.talk("I live in Lisbon.")
        await deployment.take_in()
        await deployment.hurry()

    async def gone(_: Account) -> None:
        raise RuntimeError("killed")

    async def settled() -> bool:
        return await idle(deployment, kind) and not await deployment.commands.redis.keys("sb:calls:*")

    with monkeypatch.context() as patch:
        patch.setattr(Account, "booked", gone)
        async with deployment.worker(), deployment.memory():
            await eventually(lambda: calls(deployment, kind), timeout_s=30)
    assert await deployment.commands.redis.keys("sb:calls:*"), "the next claim finds what is held"
    await deployment.books.execute("UPDATE memory_tasks SET lease_until = now()")
    async with deployment.worker(), deployment.memory():
        await eventually(settled, timeout_s=30)
    assert [call["status"] for call in await calls(deployment, kind)] == ["ok"]
    made = await deployment.summary() if kind == "summary" else (await deployment.facts())[0]
    assert made is not None
    assert made["body"] == ("They talked about shoes." if kind == "summary" else "Lives in Lisbon.")


async def test_what_was_paid_for_waits_for_postgres(
    deployment: Remembering, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployment.behave(SHOES)
    await long_talk(deployment)
    commit, tried = TaskStore.commit_summary, list[int]()

    async def away_twice(*args: Any) -> bool:
        tried.append(1)
        if len(tried) < 3:
            raise Unavailable("Postgres cannot be reached")
        return await commit(*args)

    monkeypatch.setattr(TaskStore, "commit_summary", away_twice)
    async with deployment.worker(), deployment.memory():
        await eventually(lambda: idle(deployment, "summary"), timeout_s=30)
    made = await deployment.summary()
    assert made is not None
    assert made["body"] == "They talked about shoes."
    assert [call["status"] for call in await calls(deployment, "summary")] == ["ok"]


async def test_a_summary_that_comes_too_late_is_paid_for_and_dropped(
    deployment: Remembering, eventually: Eventually
) -> None:
    """Another worker claims the task while the first one's model is still writing."""
    await deployment.behave({**SHOES, "gather": 2}, {})
    await long_talk(deployment)
    body = {"model": NANO, "messages": [{"role": "user", "content": "the call that it waits for"}]}

    async def asked() -> bool:
        return bool((await deployment.served())["concurrency"])

    async with deployment.memory():
        await eventually(asked, timeout_s=30)
        await deployment.books.execute("UPDATE memory_tasks SET claim = claim + 1, due_at = NULL")
        said = await deployment.standin.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer x"})
        said.raise_for_status()
        await eventually(lambda: calls(deployment, "summary"), timeout_s=30)
    assert await deployment.summary() is None
    assert [call["status"] for call in await calls(deployment, "summary")] == ["ok"]


async def test_a_worker_that_leaves_gives_its_task_back_at_once(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave({**SHOES, "faults": ["hang"]}, {})
    await long_talk(deployment)
    async with deployment.memory(drain_s=0.1):
        await eventually(lambda: deployment.commands.redis.keys("sb:calls:*"))
    task = await deployment.task("summary")
    assert task["lease_until"] is None
    assert task["due_at"] is not None
    (call,) = await calls(deployment, "summary")
    assert call["status"] == "aborted"
    assert await deployment.commands.redis.keys("sb:calls:*") == []


async def test_a_budget_that_is_spent_puts_the_work_off(deployment: Remembering, eventually: Eventually) -> None:
    await long_talk(deployment)
    await deployment.give(conversation_usd="0.000000001")

    async def put_off() -> dict[str, Any] | None:
        task = await deployment.task("summary")
        return task if task["error"] else None

    async with deployment.worker(), deployment.memory():
        task = await eventually(put_off)
    assert msgspec.json.decode(task["error"])["code"] == "budget_exhausted"
    now = await deployment.books.fetchval("SELECT now()")
    assert timedelta(minutes=50) < task["due_at"] - now <= timedelta(hours=1)
    assert await calls(deployment, "summary") == []


async def test_a_busy_provider_is_left_to_the_chats(deployment: Remembering, eventually: Eventually) -> None:
    await deployment.memory_settings(facts=False)
    await deployment.behave({"match": "slow", "held": True}, {})
    async with deployment.worker(openai_concurrency=1), deployment.memory(openai_concurrency=1):
        await deployment.talk(*(f"message {n}" for n in range(11)))
        slow = await deployment.say("slow", conversation="c2", user=None)
        await eventually(lambda: deployment.commands.redis.exists("sb:provider:openai:calls"))
        await deployment.take_in()

        async def refused() -> bool:
            return bool((await deployment.task("summary"))["error"])

        await eventually(refused)
        await deployment.behave()
        assert (await deployment.ended(slow)).state == "succeeded"
    assert await calls(deployment, "summary") == []


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
        await eventually(lambda: idle(deployment, "facts"))
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
    (call,) = await calls(deployment, "facts")
    assert call["status"] == "ok"


async def test_what_changes_closes_what_was_and_nothing_is_overwritten(
    deployment: Remembering, eventually: Eventually
) -> None:
    async with deployment.worker(), deployment.memory():
        for text in ("I live in Lisbon.", "I now live in Porto.", "As I said, I live in Porto."):
            await deployment.talk(text)
            await deployment.take_in()
            await deployment.hurry()
            await eventually(lambda: idle(deployment, "facts"))
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
            tried = len(await calls(deployment, "facts")) + 1

            async def again(wanted: int = tried) -> bool:
                task = await deployment.task("facts")
                return len(await calls(deployment, "facts")) >= wanted and task["lease_until"] is None

            await eventually(again)
        task = await deployment.task("facts")
        assert (task["due_at"], task["done_seq"]) == (None, 2)
        await deployment.talk("I live in Faro.")
        await deployment.take_in()
        await deployment.hurry()
        await eventually(deployment.facts)
    assert [fact["body"] for fact in await deployment.facts()] == ["Lives in Faro."]
    assert len(await calls(deployment, "facts")) == runner.MAX_ATTEMPTS + 1


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


async def test_a_disabled_tenants_tasks_ask_no_model(deployment: Remembering, eventually: Eventually) -> None:
    await long_talk(deployment)
    await deployment.books.execute("UPDATE tenants SET disabled_at = now() WHERE tenant_id = $1", TENANT)
    async with deployment.worker(), deployment.memory():
        await eventually(lambda: idle(deployment, "summary"))
    assert await calls(deployment, "summary") == []
    assert await deployment.summary() is None
