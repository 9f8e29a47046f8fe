"""Tasks of memory as such: who works them off, who pays, and what becomes of one whose worker is gone."""

import asyncio
import signal
import sys
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from shared.errors import Unavailable
from tests.conftest import START_S, Eventually
from tests.context.conftest import SHOES, Remembering
from tests.turn.deployment import TENANT, environment_of
from workers.background.money import Account
from workers.background.tasks import TaskStore

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_killed_workers_task_is_done_by_another_one_and_every_call_is_paid_for(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave({**SHOES, "faults": ["hang"]}, {})
    await deployment.long_talk()
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
        await eventually(lambda: deployment.idle("summary"))
    assert made["body"] == "They talked about shoes."
    first, second = await deployment.calls("summary")
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
        await deployment.long_talk()
    else:
        async with deployment.worker():
            await deployment.talk("I live in Lisbon.")
        await deployment.take_in()
        await deployment.hurry()

    async def gone(_: Account) -> None:
        raise RuntimeError("killed")

    async def settled() -> bool:
        return await deployment.idle(kind) and not await deployment.commands.redis.keys("sb:calls:*")

    with monkeypatch.context() as patch:
        patch.setattr(Account, "booked", gone)
        async with deployment.worker(), deployment.memory():
            await eventually(lambda: deployment.calls(kind), timeout_s=30)
    assert await deployment.commands.redis.keys("sb:calls:*"), "the next claim finds what is held"
    await deployment.books.execute("UPDATE memory_tasks SET lease_until = now()")
    async with deployment.worker(), deployment.memory():
        await eventually(settled, timeout_s=30)
    assert [call["status"] for call in await deployment.calls(kind)] == ["ok"]
    made = await deployment.summary() if kind == "summary" else (await deployment.facts())[0]
    assert made is not None
    assert made["body"] == ("They talked about shoes." if kind == "summary" else "Lives in Lisbon.")


async def test_what_was_paid_for_waits_for_postgres(
    deployment: Remembering, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployment.behave(SHOES)
    await deployment.long_talk()
    commit, tried = TaskStore.commit_summary, list[int]()

    async def away_twice(*args: Any) -> bool:
        tried.append(1)
        if len(tried) < 3:
            raise Unavailable("Postgres cannot be reached")
        return await commit(*args)

    monkeypatch.setattr(TaskStore, "commit_summary", away_twice)
    async with deployment.worker(), deployment.memory():
        await eventually(lambda: deployment.idle("summary"), timeout_s=30)
    made = await deployment.summary()
    assert made is not None
    assert made["body"] == "They talked about shoes."
    assert [call["status"] for call in await deployment.calls("summary")] == ["ok"]


async def test_a_worker_that_leaves_gives_its_task_back_at_once(
    deployment: Remembering, eventually: Eventually
) -> None:
    await deployment.behave({**SHOES, "faults": ["hang"]}, {})
    await deployment.long_talk()
    async with deployment.memory(drain_s=0.1):
        await eventually(lambda: deployment.commands.redis.keys("sb:calls:*"))
    task = await deployment.task("summary")
    assert task["lease_until"] is None
    assert task["due_at"] is not None
    (call,) = await deployment.calls("summary")
    assert call["status"] == "aborted"
    assert await deployment.commands.redis.keys("sb:calls:*") == []


async def test_a_budget_that_is_spent_puts_the_work_off(deployment: Remembering, eventually: Eventually) -> None:
    await deployment.long_talk()
    await deployment.give(conversation_usd="0.000000001")

    async def put_off() -> dict[str, Any] | None:
        task = await deployment.task("summary")
        return task if task["error"] else None

    async with deployment.worker(), deployment.memory():
        task = await eventually(put_off)
    assert msgspec.json.decode(task["error"])["code"] == "budget_exhausted"
    now = await deployment.books.fetchval("SELECT now()")
    assert timedelta(minutes=50) < task["due_at"] - now <= timedelta(hours=1)
    assert await deployment.calls("summary") == []


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
    assert await deployment.calls("summary") == []


async def test_a_disabled_tenants_tasks_ask_no_model(deployment: Remembering, eventually: Eventually) -> None:
    await deployment.long_talk()
    await deployment.books.execute("UPDATE tenants SET disabled_at = now() WHERE tenant_id = $1", TENANT)
    async with deployment.worker(), deployment.memory():
        await eventually(lambda: deployment.idle("summary"))
    assert await deployment.calls("summary") == []
    assert await deployment.summary() is None
