"""The writer's dealings with Postgres: what waits for its vector, who takes it, and the vectors. Role switchboard_ops.

A text is claimed for a while (`LEASE_S`); when its process dies, others get it then. Every method is one statement, may
be repeated, and raises Unavailable.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import asyncpg

from shared.db import Pool
from sql import queries
from workers.embeddings.api import Vector, halfvec
from workers.embeddings.batch import Item, Payer

LEASE_S = 120
"""Longer than a call and its booking take; the money's own claim is shorter (`money.OWN_S`)."""

State = Literal["building", "active", "retiring", "retired"]


class Model(NamedTuple):
    model_id: int
    name: str
    dimensions: int
    state: State


class EmbeddingBooks:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def models(self) -> list[Model]:
        """All that have, or are to have, vectors; the active one first."""
        rows = await self._pool.fetch(queries["embedding_models"])
        found = [Model(row["model_id"], row["name"], row["dimensions"], row["state"]) for row in rows]
        return [model for model in found if model.state != "retired"]

    async def ensure(self, name: str, dimensions: int, floor: float) -> bool:
        """Whether the deployment had no model until now; then this one is active."""
        return await self._pool.fetchval(queries["ensure_embedding_model"], name, dimensions, floor) is not None

    async def claim(self, model: Model, limit: int) -> list[Item]:
        rows = await self._pool.fetch(queries["claim_embeddings"], model.model_id, limit, LEASE_S)
        return [
            Item(
                row["item_id"],
                row["version"],
                Payer(
                    row["tenant_id"],
                    row["user_id"],
                    row["conversation_id"],
                    row["agent"],
                    row["domain"],
                    row["feature"],
                ),
                row["text"],
                row["attempts"],
            )
            for row in rows
        ]

    async def write(self, model: Model, found: Sequence[tuple[Item, Vector]]) -> None:
        """Items that were deleted or have changed meanwhile are passed over."""
        items = [item.item_id for item, _ in found]
        versions = [item.version for item, _ in found]
        vectors = []
        for _, vector in found:
            vectors.append(halfvec(vector))
            await asyncio.sleep(0)  # half a millisecond each
        with _served():
            await self._pool.fetchval(queries["write_embeddings"], model.model_id, items, versions, vectors)

    async def postpone(self, model: Model, items: Sequence[Item], delay_s: float, why: str) -> None:
        numbers = [item.item_id for item in items]
        await self._pool.fetchval(queries["postpone_embeddings"], model.model_id, numbers, round(delay_s), why)

    async def fill(self, model: Model, limit: int) -> int:
        """How many older items were looked at; 0: all are in line."""
        with _served():
            looked_at: int = await self._pool.fetchval(queries["fill_embeddings"], model.model_id, limit)
            return looked_at
        return 0

    async def pending(self) -> Mapping[int, int]:
        """Texts that wait, by model."""
        rows = await self._pool.fetch(queries["embeddings_pending"])
        return {row["model_id"]: row["pending"] for row in rows}

    async def forget(self, model: Model, after: tuple[str, str], limit: int) -> tuple[tuple[str, str] | None, int]:
        """A step of retiring: where it came to (None: at the end), and how many rows went."""
        row = await self._pool.fetchrow(queries["forget_embeddings"], model.model_id, *after, limit)
        if row is None:
            raise RuntimeError("forget_embeddings returns one row")
        return (None if row["tenant"] is None else (row["tenant"], row["user"])), row["deleted"]

    async def gone(self, model: Model) -> None:
        await self._pool.fetchval(queries["embedding_model_gone"], model.model_id)


@contextlib.contextmanager
def _served() -> Iterator[None]:
    """A model that was retired since it was looked at takes nothing any more."""
    with contextlib.suppress(asyncpg.NoDataFoundError):
        yield
