"""Erasing while memory is being made: a vector or a fact that comes late finds nobody to belong to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ops.users.erasing import Eraser
from shared.config import Settings
from shared.db import Pool
from shared.deployment import of_database
from tests.conftest import Eventually
from tests.forgetting.searching import Everywhere
from tests.forgetting.test_erasing import CANARY, USER, a_user, erase
from tests.turn.deployment import TENANT, Deployment
from workers.background.opened import memory_minded
from workers.embeddings.upkeep import embedding
from workers.erasure.subjects import Subjects
from workers.memory.writer import writing

MODEL = "text-embedding-3-small"
SMALL = "gpt-5.4-nano"


@contextlib.asynccontextmanager
async def memory_made(kind: str, deployment: Deployment, settings: Settings, ops: Pool) -> AsyncIterator[None]:
    """As the delivery process does: vectors, or what is told of users."""
    subjects = Subjects.of(settings, (await of_database(ops)).id)
    given = {"embedding_model": f"openai:{MODEL}", "memory_tasks": 1, "memory_models": f"openai:{SMALL}"}
    mine = settings.model_copy(update=given)
    made = embedding if kind == "vector" else memory_minded
    async with writing(ops), made(mine, deployment.commands, ops, subjects):
        yield


async def ask_too(deployment: Deployment, kind: str) -> None:
    """The call that the one under way waits for."""
    if kind == "vector":
        path, body = "/v1/embeddings", {"model": MODEL, "input": "something else"}
    else:
        path, body = "/v1/chat/completions", {"model": SMALL, "messages": [{"role": "user", "content": "hi"}]}
    (await deployment.standin.post(path, json=body, headers={"authorization": "Bearer x"})).raise_for_status()


@pytest.mark.parametrize("kind", ["vector", "facts"])
async def test_what_is_made_of_memory_meanwhile_is_not_kept(
    deployment: Deployment,
    settings: Settings,
    eraser: Eraser,
    everywhere: Everywhere,
    ops_pool: Pool,
    eventually: Eventually,
    kind: str,
) -> None:
    await deployment.behave({"model": MODEL, "gather": 2}, {"model": SMALL, "gather": 2}, {})
    async with deployment.worker():
        await deployment.ended(await deployment.say(f"My name is {CANARY}.", user=USER))

    async def under_way() -> bool:
        await deployment.books.execute("UPDATE memory_tasks SET due_at = now()")
        return bool((await deployment.served())["concurrency"])

    async def nothing_of_them() -> bool:
        tables = ("memory_items", "memory_embeddings", "memory_pending", "user_facts", "memory_tasks", "messages")
        return not any([await deployment.books.fetchval(f"SELECT count(*) FROM {table}") for table in tables])  # noqa: S608

    async def forgotten() -> bool:
        return not await everywhere.find(CANARY, USER)

    async with memory_made(kind, deployment, settings, ops_pool):
        await eventually(under_way, timeout_s=20)
        erasing = asyncio.create_task(erase(eraser, a_user()))
        await eventually(nothing_of_them, timeout_s=20)
        assert not erasing.done(), "the call under way still names the user in Redis"
        await ask_too(deployment, kind)
        await erasing

        async def booked() -> bool:
            rows = await deployment.ledger()
            return len(rows) == 2 and rows[1]["status"] != "lost"

        await eventually(booked, timeout_s=20)
        await eventually(forgotten, timeout_s=20)
        assert {row["user_id"] for row in await deployment.ledger()} == {None}
        assert (await deployment.ledger())[1]["cost_nano_usd"] > 0
        async with deployment.worker():  # whoever comes back is nobody we know
            await deployment.ended(await deployment.say("hello again", user=USER))
    told = [call["user_text"] for call in (await deployment.served())["requests"]]
    assert sum(CANARY in text for text in told) <= 2, "the message, and what was made of it before"
    assert await deployment.books.fetchval("SELECT count(*) FROM user_facts WHERE tenant_id = $1", TENANT) == 0
