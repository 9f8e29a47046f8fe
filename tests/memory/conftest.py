"""Conversations that turns have committed, and the writer over them, on the test's own database."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from shared.db import Pool, jsonb, open_pool
from shared.ids import uuid7
from sql import queries
from tests.conftest import Database
from tests.sql.shapes import CREATED_US, a_turn
from workers.memory.writer import MemoryWriter

TENANT, USER = "acme", "ann"
HOUR_US = 3_600_000_000


@dataclass
class Memory:
    """`app` is bound by row-level security, `ops` sees all."""

    ops: Pool
    app: Pool
    writer: MemoryWriter
    superuser_dsn: str

    @asynccontextmanager
    async def superuser(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            yield connection
        finally:
            await connection.close()

    async def say(
        self,
        message: str,
        reply: str | None = "ok",
        *,
        tenant: str = TENANT,
        user: str | None = USER,
        conversation: str = "c1",
        at_us: int = CREATED_US,
    ) -> None:
        """A turn ends, as the workers end it."""
        fields: dict[str, Any] = {} if reply is not None else {"state": "dead", "error": {"code": "x", "message": "x"}}
        turn = a_turn(
            memory=True, user_id=user, conversation_id=conversation, message=message, reply=reply,
            created_us=at_us, started_us=at_us + 1, finished_us=at_us + 2, **fields,
        )  # fmt: skip
        await self.app.fetchrow(queries["commit_turn"], tenant, jsonb(turn))

    async def know(self, name: str) -> None:
        """The user's name stands in the profile."""
        await self.ops.execute(
            "INSERT INTO users (tenant_id, user_id, created_at, profile) "
            "VALUES ($1, $2, now(), jsonb_build_object('name', jsonb_build_object('value', $3::text)))",
            TENANT, USER, name,
        )  # fmt: skip

    async def write(self) -> None:
        while await self.writer.step():
            pass

    async def model(self, dimensions: int = 3, *, floor: float = 0.2, state: str = "active") -> int:
        """A new one; its id."""
        found: int = await self.ops.fetchval(
            "INSERT INTO embedding_models (name, dimensions, floor, state) VALUES ($1, $2, $3, $4) RETURNING model_id",
            f"test:{uuid7()}", dimensions, floor, state,
        )  # fmt: skip
        return found

    async def embed(self, model: int, vectors: dict[str, Sequence[float]], *, default: Sequence[float] = ()) -> None:
        """What waits gets the vector of the first of `vectors` that its text contains."""
        await self.ops.execute("UPDATE memory_pending SET due_at = now() - interval '1 minute'")
        while rows := await self.ops.fetch(queries["claim_embeddings"], model, 100, 60):
            chosen = [next((v for part, v in vectors.items() if part in row["text"]), default) for row in rows]
            assert all(chosen), rows
            await self.ops.execute(
                queries["write_embeddings"], model, [row["item_id"] for row in rows],
                [row["version"] for row in rows], [str(list(vector)) for vector in chosen],
            )  # fmt: skip

    async def recall(
        self,
        question: str,
        *,
        tenant: str = TENANT,
        user: str = USER,
        model: int | None = None,
        vector: Sequence[float] | None = None,
        tokens: int = 1_000,
        limit: int = 10,
        window: tuple[str, int] | None = None,
    ) -> dict[str, Any]:
        answer = await self.app.fetchval(
            queries["recall"], tenant, user, question, model, vector, tokens, limit, *(window or (None, None))
        )
        found: dict[str, Any] = json.loads(answer)
        return found

    async def items(self, kind: str = "piece") -> list[Any]:
        """Of everybody, in the order in which they were said."""
        return await self.ops.fetch(
            "SELECT i.*, item_text(i) AS text FROM memory_items AS i WHERE kind = $1 "
            "ORDER BY conversation_id, seq, part",
            kind,
        )

    async def waiting(self) -> int:
        """Turns in the outbox."""
        found: int = await self.ops.fetchval("SELECT count(*) FROM memory_outbox")
        return found


@pytest.fixture
async def memory(database: Database) -> AsyncIterator[Memory]:
    ops = await open_pool(database.ops, 4, environment="production")
    app = await open_pool(database.app, 2, environment="production")
    yield Memory(ops, app, MemoryWriter(ops), database.superuser)
    await ops.close()
    await app.close()
