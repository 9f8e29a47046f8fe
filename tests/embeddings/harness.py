"""Memory with things said in it, an embedding loop, and the money of it, on real servers."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import msgspec

from ops.stack.standin import Standin
from shared import keys
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.ids import uuid7
from shared.redis import Commands, connect
from tests.conftest import Database
from tests.ledger.agreement import disagreements, read_counters
from workers.embeddings.books import EmbeddingBooks, Model
from workers.embeddings.cache import VectorCache
from workers.embeddings.catalog import Shelf
from workers.embeddings.money import Cashier
from workers.embeddings.upkeep import Upkeep
from workers.embeddings.writer import EmbeddingWriter
from workers.erasure.subjects import Subjects
from workers.ledger import prices

SUBJECTS = Subjects([b"k" * 32])
SMALL = "openai:text-embedding-3-small"
SHORT = "openai:text-embedding-3-small@256"
FREE = {f"{name}_usd": "none" for name in ("user_month", "tenant_month", "conversation", "day")}


@dataclass
class Process:
    """What one delivery process has for embeddings; `commands` are its own, so that it can be cut off."""

    upkeep: Upkeep
    writer: EmbeddingWriter
    cashier: Cashier
    books: EmbeddingBooks
    commands: Commands

    async def round(self, model: Model) -> int:
        return await self.writer.step(model)


@dataclass
class Memory:
    settings: Settings
    ops: Pool
    admin: asyncpg.Connection
    """As superuser: sees every tenant."""
    standin: httpx.AsyncClient
    commands: Commands

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, database: Database, standin: Standin) -> "AsyncIterator[Memory]":
        """Money is open, and the small model is active."""
        commands = Commands(connect(settings.redis_url))
        await commands.run("HSET", keys.MONEY, "epoch", "first")
        pool = await open_pool(database.ops, 4, environment="development")
        admin = await asyncpg.connect(database.superuser)
        try:
            async with httpx.AsyncClient(base_url=standin.url) as client:
                await EmbeddingBooks(pool).ensure(SMALL, 1536, 0.2)
                yield cls(settings, pool, admin, client, commands)
        finally:
            await admin.close()
            await pool.close()
            await commands.aclose()
            await commands.redis.aclose(close_connection_pool=True)

    @contextlib.asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        commands = Commands(connect(self.settings.redis_url))
        books, shelf = EmbeddingBooks(self.ops), Shelf(self.settings)
        cashier = Cashier(self.settings, commands, self.ops, SUBJECTS, prices.shipped)
        writer = EmbeddingWriter(books, shelf, cashier, VectorCache(self.settings.embedding_cache_bytes))
        try:
            yield Process(Upkeep(books, writer, cashier), writer, cashier, books, commands)
        finally:
            await cashier.aclose()
            await shelf.aclose()
            await commands.aclose()
            await commands.redis.aclose(close_connection_pool=True)

    async def tenant(self, name: str, **budgets: Any) -> None:
        """Without limits but for `budgets`."""
        document = {"budgets": {**FREE, "tenant_month_tokens": "none", **budgets}}
        await self.admin.execute(
            "INSERT INTO tenants (tenant_id, name, settings) VALUES ($1, $1, $2) "
            "ON CONFLICT (tenant_id) DO UPDATE SET settings = excluded.settings",
            name,
            msgspec.json.encode(document).decode(),
        )

    async def said(self, tenant: str, user: str, *texts: str, conversation: str = "") -> list[int]:
        """Messages with their items, waiting for vectors of every model that is served; the items' ids."""
        conversation = conversation or f"{tenant}-{user}"
        await self.admin.execute(
            "INSERT INTO conversations (tenant_id, conversation_id, user_id, created_at, updated_at) "
            "VALUES ($1, $2, $3, now(), now()) ON CONFLICT DO NOTHING",
            tenant,
            conversation,
            user,
        )
        return [await self._say(tenant, user, conversation, text) for text in texts]

    async def _say(self, tenant: str, user: str, conversation: str, text: str) -> int:
        seq = await self.admin.fetchval(
            "INSERT INTO messages (tenant_id, conversation_id, seq, message_id, job_id, role, agent, body, created_at) "
            "SELECT $1, $2, coalesce(max(seq), 0) + 1, $3, $4, 'user', 'support', $5, now() FROM messages "
            "WHERE tenant_id = $1 AND conversation_id = $2 RETURNING seq",
            tenant,
            conversation,
            uuid7(),
            uuid7(),
            text,
        )
        item: int = await self.admin.fetchval(
            "INSERT INTO memory_items (tenant_id, user_id, item_id, kind, conversation_id, seq, seq_to, chunk_id, "
            "role, speaker, char_from, chars, tokens, words, terms, said_at) "
            "VALUES ($1, $2, nextval('memory_blocks'), 'piece', $3, $4, $4, 0, "
            "'user', 'User', 1, $5, 1, 1, '{1:1}/1000000000', now()) RETURNING item_id",
            tenant,
            user,
            conversation,
            seq,
            len(text),
        )
        await self.admin.execute(
            "INSERT INTO memory_pending (model_id, item_id, tenant_id, user_id) "
            "SELECT model_id, $1, $2, $3 FROM embedding_models WHERE state IN ('building', 'active') "
            "ON CONFLICT DO NOTHING",  # a loop that fills may have been quicker
            item,
            tenant,
            user,
        )
        return item

    async def model(self, name: str = SMALL) -> Model:
        return next(model for model in await EmbeddingBooks(self.ops).models() if model.name == name)

    async def embedded(self, name: str = SMALL) -> list[int]:
        """Items that have a vector of this model."""
        rows = await self.admin.fetch(
            "SELECT item_id FROM memory_embeddings JOIN embedding_models USING (model_id) WHERE name = $1 ORDER BY 1",
            name,
        )
        return [row["item_id"] for row in rows]

    async def pending(self, name: str = SMALL) -> list[dict[str, Any]]:
        rows = await self.admin.fetch(
            "SELECT p.item_id, attempts, last_error, due_at > now() AS waits, "
            "extract(epoch FROM due_at - now())::float8 AS wait_s "
            "FROM memory_pending AS p JOIN embedding_models USING (model_id) WHERE name = $1 ORDER BY 1",
            name,
        )
        return [dict(row) for row in rows]

    async def due(self) -> None:
        """Whatever was put off is due now."""
        await self.admin.execute("UPDATE memory_pending SET due_at = now()")

    async def forgive(self) -> None:
        """What was heard of providers is forgotten: a model that refused our key is asked again at once."""
        async for key in self.commands.redis.scan_iter("sb:model:*"):
            await self.commands.run("DEL", key)

    async def ledger(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.admin.fetch("SELECT * FROM llm_calls ORDER BY call_id")]

    async def money_agrees(self) -> None:
        """Every counter is the sum of its ledger rows, nothing is held, and no batch is open."""
        assert disagreements(await read_counters(self.commands.redis), await self.ledger()) == []
        left: Sequence[bytes] = await self.commands.redis.keys("sb:calls:*")
        left = [*left, *await self.commands.redis.keys("sb:embedding:*")]
        assert not left

    async def behave(self, *rules: dict[str, Any]) -> None:
        (await self.standin.post("/_behaviour", json=list(rules))).raise_for_status()

    async def served(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.standin.get("/_served")).raise_for_status().json()
        return answer
