"""The outbox becomes memory: a loop of the delivery process, away from every reply.

Turns leave the outbox in the transaction that writes their items, so a crash between any two lines changes nothing. The
conversations of a batch are locked: several processes share the work, and each conversation is taken in in its order.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import structlog

from shared.db import Pool, jsonb
from shared.errors import Unavailable
from sql import queries
from workers.ledger import tokens
from workers.memory.chunking import Batch, take

log = structlog.get_logger("memory")

TURNS = 64
"""In one transaction; more wait for the next one."""
POLL_S = 0.5
OUTAGE_PAUSE_S = 1.0


class MemoryWriter:
    """Needs a role that sees every tenant."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._leaving = asyncio.Event()
        self._careful = 0

    async def run(self) -> None:
        """Until `leave`."""
        await asyncio.to_thread(tokens.load)
        while not self._leaving.is_set():
            try:
                pause_s = 0.0 if await self.step() else POLL_S
            except Unavailable as error:
                log.warning("memory.outage", fault=str(error))
                pause_s = OUTAGE_PAUSE_S
            if pause_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._leaving.wait(), pause_s)

    def leave(self) -> None:
        self._leaving.set()

    async def step(self) -> bool:
        """Writes a batch; whether there was one. A batch that cannot be written is gone through turn by turn.

        Raises Unavailable, with nothing written.
        """
        one_by_one = self._careful > 0
        self._careful = max(0, self._careful - 1)
        batch: Batch | None = None
        try:
            async with self._pool.connection() as connection, connection.transaction():
                taken = await connection.fetchval(queries["take_memory_outbox"], 1 if one_by_one else TURNS)
                if taken is None:
                    return False
                batch = msgspec.json.decode(taken, type=Batch)
                found = take(batch)
                await connection.execute(
                    queries["write_memory"], jsonb(found.pieces), jsonb(found.chunks), found.outbox
                )
        except Unavailable:
            raise
        except Exception as error:  # one turn that cannot be written must not hold up the others
            if not one_by_one:
                log.warning("memory.batch_failed", error=repr(error))
                self._careful = TURNS
            elif batch is not None:
                await self._postpone(batch, error)
            else:
                log.exception("memory.not_taken")
                return False
        return True

    async def _postpone(self, batch: Batch, error: Exception) -> None:
        outbox = [number for conversation in batch.conversations for number in conversation.outbox]
        log.error("memory.postponed", turns=outbox, exc_info=error)
        await self._pool.execute(queries["postpone_memory_outbox"], outbox, repr(error)[:500])


@contextlib.asynccontextmanager
async def writing(pool: Pool) -> AsyncIterator[None]:
    """A writer at work while the block lasts; a batch that is under way at its end is finished."""
    writer = MemoryWriter(pool)
    task = asyncio.create_task(writer.run())
    try:
        yield
    finally:
        writer.leave()
        await asyncio.wait([task])
        task.result()
