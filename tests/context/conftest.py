"""A deployment whose messages are taken into memory by the test, and whose tasks are worked off when it says so."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from shared.db import open_pool
from tests.conftest import Database
from tests.turn.conftest import settings as settings  # noqa: PLC0414 - a fixture, used by its name
from tests.turn.deployment import TENANT, Deployment
from workers.background import runner
from workers.background.opened import memory_minded
from workers.erasure.subjects import Subjects
from workers.memory.writer import MemoryWriter

NANO = "gpt-5.4-nano"
SHOES = {"model": NANO, "reply": "They talked about shoes."}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever works tasks off looks for them all the time."""
    monkeypatch.setattr(runner, "POLL_S", 0.02)


class Remembering(Deployment):
    """`deployment`, and what memory does beside it."""

    async def talk(self, *messages: str, conversation: str = "c1", user: str | None = "u1", **fields: Any) -> list[str]:
        """Says these one after the other to a worker that runs; the replies."""
        replies = []
        for message in messages:
            record = await self.ended(await self.say(message, conversation=conversation, user=user, **fields))
            replies.append(record.reply or "")
        return replies

    ops: str = ""

    @contextlib.asynccontextmanager
    async def memory(self, **overrides: Any) -> AsyncIterator[None]:
        """Tasks are worked off, as in a delivery process."""
        given = {"memory_tasks": 1, "memory_models": f"openai:{NANO}", **overrides}
        settings = self.settings.model_copy(update=given)
        pool = await open_pool(self.ops, 4, environment="development")
        async with memory_minded(settings, self.commands, pool, Subjects([b"k" * 32])):
            yield
        await pool.close()

    async def take_in(self) -> None:
        """What was said is in memory, so that tasks are due."""
        pool = await open_pool(self.ops, 1, environment="development")
        taken = MemoryWriter(pool)
        while await taken.step():
            pass
        await pool.close()

    async def long_talk(self, turns: int = 11) -> None:
        """So many that it is to be summed up, and nothing else."""
        await self.memory_settings(facts=False)
        async with self.worker():
            await self.talk(*(f"message {n}" for n in range(turns)))
        await self.take_in()

    async def hurry(self) -> None:
        """Nobody waits for a quiet minute."""
        await self.books.execute("UPDATE memory_tasks SET due_at = now() WHERE due_at IS NOT NULL")

    async def memory_settings(self, **memory: Any) -> None:
        document = msgspec.json.encode({"memory": memory}).decode()
        await self.books.execute("UPDATE tenants SET settings = settings || $2 WHERE tenant_id = $1", TENANT, document)

    async def task(self, kind: str, conversation: str = "c1") -> dict[str, Any]:
        query = "SELECT * FROM memory_tasks WHERE kind = $1 AND conversation_id = $2"
        row = await self.books.fetchrow(query, kind, conversation)
        return dict(row) if row else {}

    async def idle(self, kind: str) -> bool:
        """Whether such a task was worked off, for now."""
        task = await self.task(kind)
        return bool(task) and task["due_at"] is None and task["lease_until"] is None

    async def calls(self, kind: str) -> list[dict[str, Any]]:
        """What the ledger has of them."""
        rows = await self.books.fetch("SELECT * FROM llm_calls WHERE kind = $1 ORDER BY call_id", kind)
        return [dict(row) for row in rows]

    async def facts(self, user: str = "u1") -> list[dict[str, Any]]:
        query = "SELECT * FROM user_facts WHERE user_id = $1 ORDER BY valid_from, fact_id"
        return [dict(row) for row in await self.books.fetch(query, user)]

    async def summary(self, conversation: str = "c1") -> dict[str, Any] | None:
        row = await self.books.fetchrow("SELECT * FROM conversation_summaries WHERE conversation_id = $1", conversation)
        return dict(row) if row else None


@pytest.fixture
async def deployment(settings: Settings, database: Database, standin: Standin) -> AsyncIterator[Remembering]:
    async with Remembering.open(settings, database, standin) as opened:
        assert isinstance(opened, Remembering)
        opened.ops = database.ops
        yield opened
        await opened.check_money()
