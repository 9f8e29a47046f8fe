"""A PostgreSQL of the benchmark's own, filled the way turns fill it: messages and outbox, then the product's writer."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ops.stack.directory import DataDirectory
from ops.stack.postgres import start_postgres
from shared.db import Pool, open_pool
from shared.ids import uuid7
from sql import queries
from sql.migrate import migrate
from workers.memory.writer import MemoryWriter

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "4GB", "jit": "off"}
"""The data is thrown away."""


class Line(NamedTuple):
    """A message."""

    conversation: str
    seq: int
    role: str
    agent: str
    body: str
    said_at: datetime


@asynccontextmanager
async def open_database(shared_buffers: str = "512MB") -> AsyncIterator[tuple[Pool, Pool, Callable[[str], None]]]:
    """Pools of the roles ops and app on a migrated database that is gone afterwards; what runs a superuser's script."""
    with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as name:
        os.chmod(name, 0o711)  # noqa: PTH101, S103 - for root: its servers run as another user
        with DataDirectory(Path(name)) as directory:
            postgres = start_postgres(directory, settings={**FAST, "shared_buffers": shared_buffers})
            try:
                await migrate(postgres.dsn("switchboard_owner"))
                ops = await open_pool(postgres.dsn("switchboard_ops"), 4, environment="development")
                app = await open_pool(postgres.dsn("switchboard_app"), 4, environment="production")
                try:
                    yield ops, app, postgres.superuser_sql
                finally:
                    await asyncio.gather(ops.close(), app.close())
            finally:
                postgres.stop()


async def say(ops: Pool, tenant: str, user: str, name: str, lines: Sequence[Line]) -> None:
    """What the commits of these turns would have left: conversations, messages, and a row of the outbox for each."""
    ids = [(uuid7(), uuid7()) for _ in lines]
    async with ops.connection() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO users (tenant_id, user_id, created_at, profile) "
            "VALUES ($1, $2, now(), jsonb_build_object('name', jsonb_build_object('value', $3::text))) "
            "ON CONFLICT DO NOTHING",
            tenant, user, name,
        )  # fmt: skip
        begun = {line.conversation: line.said_at for line in reversed(lines)}
        await _copy(
            connection,
            "conversations",
            ("tenant_id", "conversation_id", "user_id", "created_at", "updated_at"),
            ((tenant, conversation, user, at, at) for conversation, at in begun.items()),
        )
        await _copy(
            connection,
            "messages",
            ("tenant_id", "conversation_id", "seq", "message_id", "job_id", "role", "agent", "body", "created_at"),
            ((tenant, line.conversation, line.seq, *ids[i], *line[2:]) for i, line in enumerate(lines)),
        )
        await _copy(
            connection,
            "memory_outbox",
            ("tenant_id", "user_id", "conversation_id", "job_id", "message_ids"),
            ((tenant, user, line.conversation, ids[i][1], [ids[i][0]]) for i, line in enumerate(lines)),
        )


async def _copy(connection: Any, table: str, columns: Sequence[str], records: Iterable[Sequence[object]]) -> None:
    await connection.executemany(
        f"INSERT INTO {table} ({', '.join(columns)}) "  # noqa: S608 - names of our own
        f"VALUES ({', '.join(f'${n}' for n in range(1, len(columns) + 1))})",
        list(records),
    )


async def write_all(ops: Pool) -> None:
    """The product's writer, until the outbox is empty."""
    writer = MemoryWriter(ops)
    while await writer.step():
        pass
    waiting = await ops.fetchval("SELECT count(*) FROM memory_outbox")
    assert waiting == 0, f"{waiting} turns could not be written"


async def add_model(ops: Pool, name: str, dimensions: int, floor: float) -> int:
    """A serving model; its id."""
    model: int = await ops.fetchval(
        "INSERT INTO embedding_models (name, dimensions, floor, state) VALUES ($1, $2, $3, 'active') "
        "RETURNING model_id",
        name, dimensions, floor,
    )  # fmt: skip
    return model


class Found(NamedTuple):
    """Texts of one claim."""

    items: list[int]
    versions: list[int]
    texts: list[str]


async def claim(ops: Pool, model: int, limit: int) -> Found:
    rows = await ops.fetch(queries["claim_embeddings"], model, limit, 600)
    return Found([row["item_id"] for row in rows], [row["version"] for row in rows], [row["text"] for row in rows])
