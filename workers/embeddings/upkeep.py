"""Keeps memory's vectors whole: the loop around the writer, and what moves memory from one model to another.

One per delivery process, until its end. Every round: models that are served are filled and embedded, retiring ones are
emptied, batches of processes that are gone are settled. Each step is short and starts where the last one, or a killed
process, left off; several processes share all of it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import structlog

from shared.config import Settings
from shared.db import Pool
from shared.deployment import of_database
from shared.errors import Unavailable
from shared.redis import Commands
from workers.embeddings import metrics
from workers.embeddings.books import EmbeddingBooks, Model
from workers.embeddings.cache import VectorCache
from workers.embeddings.catalog import Shelf, floor_of, read_name
from workers.embeddings.money import Cashier
from workers.embeddings.writer import BATCH, EmbeddingWriter
from workers.erasure.subjects import Subjects
from workers.ledger import prices

log = structlog.get_logger("embeddings")

NONE = "none"
"""In the place of a model's name: memory is searched by words only."""
GATHER_S = 0.2
"""After a claim that was not full: how long texts gather before the next."""
IDLE_S = 1.0
BUSY_CLAIMS = 4
"""Claims of a model under way at once while there is more than one claim takes."""
OUTAGE_S = 2.0
FILL = 1_000
"""Older items put in line for a model by one step, while fewer than that wait."""
FORGET = 5_000
SWEEP_S = 15.0
COUNT_S = 15.0


class Upkeep:
    def __init__(self, books: EmbeddingBooks, writer: EmbeddingWriter, cashier: Cashier) -> None:
        self._books, self._writer, self._cashier = books, writer, cashier
        self._claims: dict[int, int] = {}
        self._filled: dict[int, float] = {}
        self._walks: dict[int, tuple[tuple[str, str], int]] = {}
        self._swept_at = self._counted_at = -1e9
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Until it is cancelled; outages and faults of ours end no loop."""
        while True:
            try:
                pause_s = await self.round()
            except Unavailable as error:
                log.warning("embeddings.outage", fault=str(error))
                pause_s = OUTAGE_S
            except Exception:
                log.exception("embeddings.broke")
                pause_s = OUTAGE_S
            await asyncio.sleep(pause_s)

    async def round(self) -> float:
        """Everything once; for how long nothing more needs to be done."""
        now_s = time.monotonic()
        models = await self._books.models()
        served = {model.model_id for model in models if model.state != "retiring"}
        self._filled = {model_id: until_s for model_id, until_s in self._filled.items() if model_id in served}
        pauses = [await self._keep(model) for model in models]
        if now_s - self._swept_at >= SWEEP_S:
            self._swept_at = now_s
            await self._cashier.settle_left()
        if now_s - self._counted_at >= COUNT_S:
            self._counted_at = now_s
            await self._count(models)
        return min(pauses, default=IDLE_S)

    async def _keep(self, model: Model) -> float:
        if model.state == "retiring":
            return await self._empty(model)
        await self._fill(model)
        claims = self._claims.get(model.model_id, 1)
        taken = await self._writer.step(model, claims=claims)
        full = taken >= claims * BATCH
        self._claims[model.model_id] = BUSY_CLAIMS if full else 1
        return 0.0 if full else GATHER_S if taken else IDLE_S

    async def _fill(self, model: Model) -> None:
        """Older items are put in line a step at a time; a model that lacks none is asked again once in a while."""
        now_s = time.monotonic()
        if now_s < self._filled.get(model.model_id, 0.0):
            return
        if not await self._books.fill(model, FILL):
            self._filled[model.model_id] = now_s + COUNT_S

    async def _empty(self, model: Model) -> float:
        """A step of the walk over a retiring model's vectors; one that found nothing from end to end was the last."""
        after, found = self._walks.get(model.model_id, (("", ""), 0))
        came_to, deleted = await self._books.forget(model, after, FORGET)
        if came_to is not None:
            self._walks[model.model_id] = (came_to, found + deleted)
        else:
            self._walks.pop(model.model_id, None)
            if not found + deleted:
                await self._books.gone(model)
        return 0.0

    async def _count(self, models: list[Model]) -> None:
        pending = await self._books.pending()
        names = {model.model_id: model.name for model in models}
        shown = {names[model_id]: count for model_id, count in pending.items() if model_id in names}
        for name, count in shown.items():
            metrics.pending(name, count)
        for gone in self._shown - set(shown):
            metrics.forget(gone)
        self._shown = set(shown)


@contextlib.asynccontextmanager
async def embedding(settings: Settings, commands: Commands, pool: Pool) -> AsyncIterator[Upkeep]:
    """The loop, for as long as the block lasts. `pool` is of the role switchboard_ops.

    A deployment that has no model yet gets the one of its settings; later changes are `switchboard memory models`.
    """
    books, shelf = EmbeddingBooks(pool), Shelf(settings)
    subjects = Subjects.of(settings, (await of_database(pool)).id)
    cashier = Cashier(settings, commands, pool, prices.shipped, subjects)
    upkeep = Upkeep(books, EmbeddingWriter(books, shelf, cashier, VectorCache(settings.embedding_cache_bytes)), cashier)
    await _begin(settings, books)
    loop = asyncio.create_task(upkeep.run())
    try:
        yield upkeep
    finally:
        loop.cancel()
        await asyncio.wait([loop])
        await cashier.aclose()
        await shelf.aclose()


async def _begin(settings: Settings, books: EmbeddingBooks) -> None:
    if (name := settings.embedding_model) == NONE:
        return
    known = read_name(name)
    if await books.ensure(name, known.dimensions, floor_of(name)):
        log.info("embeddings.begun", model=name, dimensions=known.dimensions)
    elif not any(model.name == name for model in await books.models()):
        log.warning("embeddings.other_model", wanted=name, mend=f"switchboard memory models add {name}")
