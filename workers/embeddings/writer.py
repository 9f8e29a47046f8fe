"""Pays what memory owes: texts without their vector are claimed, embedded many at a time, and written. A loop.

Runs in the delivery process, beside what else waits in tables; several share the work. A text that cannot be embedded
now waits in its table with the reason, for longer each time; nothing is ever dropped, and no reply waits for any of it.
Two processes that embed the same text write the same vector. docs/decisions/0029.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog

from shared.errors import AccountRejected, UpstreamError, UpstreamRejected
from workers.embeddings import metrics
from workers.embeddings.api import Embedded, Embedder, Vector
from workers.embeddings.batch import Item, batches, by_text
from workers.embeddings.books import EmbeddingBooks, Model
from workers.embeddings.cache import VectorCache
from workers.embeddings.catalog import Shelf
from workers.embeddings.money import Bill, Cashier, all_of

log = structlog.get_logger("embeddings")

BATCH = 64
"""Texts of one claim."""
CALL_S = 30.0
"""Longest provider call."""
DELAY_S, LONGEST_DELAY_S = 5.0, 3_600.0
"""Wait after the first failure, doubled after each, and its bound."""
STUCK_AFTER = 3
"""Failures of all texts of a batch after which an error of the provider's own is taken to be about one of them."""
REFUSED_S = 86_400.0
"""Until a text that the provider refuses by itself is shown to it again: another model may stand there by then."""


class EmbeddingWriter:
    """One per process. `step` is one round over all models; `workers.embeddings.upkeep` calls it until the end."""

    def __init__(self, books: EmbeddingBooks, shelf: Shelf, cashier: Cashier, cache: VectorCache) -> None:
        self._books, self._shelf, self._cashier, self._cache = books, shelf, cashier, cache
        self._told: set[int] = set()

    async def step(self, model: Model, *, claims: int = 1) -> int:
        """Claims, embeds, writes; how many texts were claimed. Raises Unavailable: then they wait out their lease."""
        embedder = self._embedder(model)
        if embedder is None:
            return 0
        claimed = await asyncio.gather(*(self._books.claim(model, BATCH) for _ in range(claims)))
        await all_of(self._embed(model, embedder, items) for items in claimed if items)
        return sum(map(len, claimed))

    def _embedder(self, model: Model) -> Embedder | None:
        embedder = self._shelf.get(model.name)
        if embedder is None or embedder.dimensions == model.dimensions:
            return embedder
        if model.model_id not in self._told:
            self._told.add(model.model_id)
            log.error("embeddings.other_dimensions", model=model.name, has=embedder.dimensions, wanted=model.dimensions)
        return None

    async def _embed(self, model: Model, embedder: Embedder, items: Sequence[Item]) -> None:
        known = [(item, vector) for item in items if (vector := self._cache.get(model.name, item.text)) is not None]
        if known:
            await self._books.write(model, known)
            metrics.reused(model.name, len(known))
        have = {item.item_id for item, _ in known}
        for batch in batches([item for item in items if item.item_id not in have], embedder):
            await self._embed_batch(model, embedder, batch)

    async def _embed_batch(self, model: Model, embedder: Embedder, items: Sequence[Item]) -> None:
        """One call; or more where a text is to blame: in halves, until it is alone and the others have theirs."""
        bill = None if embedder.free else await self._cashier.reserve(items, embedder)
        paying = items if bill is None else await self._paying(model, bill, items)
        if not paying:
            return
        texts = by_text(paying)
        try:
            embedded = await self._call(model, embedder, list(texts))
        except UpstreamError as error:
            await self._close(bill, error)
            await self._failed(model, embedder, paying, error)
        except BaseException:  # told to stop, or a fault of ours: what was sent is billed
            if bill is not None:
                self._cashier.abort(bill)
            raise
        else:
            await self._done(model, embedder, texts, embedded, bill)

    async def _call(self, model: Model, embedder: Embedder, texts: list[str]) -> Embedded:
        started_s = time.monotonic()
        embedded = await embedder.embed(texts, "document", timeout_s=CALL_S)
        metrics.batch(model.name, len(texts), time.monotonic() - started_s)
        return embedded

    async def _done(
        self, model: Model, embedder: Embedder, texts: Mapping[str, list[Item]], embedded: Embedded, bill: Bill | None
    ) -> None:
        """First the vectors, then the money: killed in between, the money is found in Redis, as it was held."""
        found: list[tuple[Item, Vector]] = []
        unusable: list[Item] = []
        for (text, items), vector in zip(texts.items(), embedded.vectors, strict=True):
            if vector is None:
                unusable += items
                continue
            self._cache.put(model.name, text, vector)
            found += [(item, vector) for item in items]
        try:
            await self._books.write(model, found)
            await self._put_off(model, unusable, LONGEST_DELAY_S, "unusable_vector")
        finally:
            if bill is not None:
                payers = [items[0] for items in texts.values()]
                await self._cashier.settle(bill, self._cashier.exact(bill, payers, embedder, embedded))

    async def _paying(self, model: Model, bill: Bill, items: Sequence[Item]) -> list[Item]:
        """Those whose payer may pay; the others wait until their reason may be over."""
        try:
            for payer, (why, delay_s) in bill.put_off.items():
                await self._put_off(model, [item for item in items if item.payer == payer], delay_s, why)
        except BaseException:
            self._cashier.void(bill)
            raise
        paying = [item for item in items if item.payer in bill.calls]
        if not paying:
            await self._cashier.settle(bill, [])
        return paying

    async def _close(self, bill: Bill | None, error: UpstreamError) -> None:
        if bill is not None:
            await self._cashier.settle(bill, self._cashier.failed(bill, error), error)

    async def _failed(self, model: Model, embedder: Embedder, items: Sequence[Item], error: UpstreamError) -> None:
        refused = isinstance(error, UpstreamRejected) and not isinstance(error, AccountRejected)
        stuck = (error.status or 0) >= 500 and min(item.attempts for item in items) >= STUCK_AFTER
        if (refused or stuck) and len(items) > 1:
            half = len(items) // 2
            for part in (items[:half], items[half:]):
                await self._embed_batch(model, embedder, part)
            return
        log.warning("embeddings.failed", model=model.name, texts=len(items), code=error.code, fault=str(error))
        if refused:
            await self._put_off(model, items, REFUSED_S, error.code)
            return
        for attempts in {item.attempts for item in items}:
            delay_s = error.retry_after_s or min(DELAY_S * 2 ** min(attempts, 20), LONGEST_DELAY_S)
            await self._put_off(model, [item for item in items if item.attempts == attempts], delay_s, error.code)

    async def _put_off(self, model: Model, items: Sequence[Item], delay_s: float, why: str) -> None:
        if items:
            await self._books.postpone(model, items, delay_s, why)
            metrics.put_off(model.name, why, len(items))
