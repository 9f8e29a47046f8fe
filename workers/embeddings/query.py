"""The meaning of a question, on a turn's way: at hand, or asked for within a deadline, or not used at all.

Called by the turn before its context is read. Nothing here fails a turn: what is late or cannot be paid makes memory
search by words only, and the answer says so. A call that costs has its reservation and its ledger row like any other of
the attempt; the local model costs nothing and has neither.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeAlias

import structlog

from shared.config import Settings
from shared.db import Pool
from shared.errors import AgentError, Unavailable, UpstreamError
from shared.ids import uuid7
from shared.jobs import Usage
from sql import queries
from workers.embeddings import metrics
from workers.embeddings.api import Embedded, Embedder, Vector, halfvec
from workers.embeddings.cache import VectorCache
from workers.embeddings.catalog import Shelf
from workers.embeddings.money import KIND, terms_of
from workers.ledger.book import Call, LedgerRow, open_embedding
from workers.ledger.prices import PriceList
from workers.ledger.purse import Blocked, Held
from workers.routing.terms import told_of
from workers.turn.spending import Spending
from workers.turn.work import Work

log = structlog.get_logger("embeddings")

Reason = Literal["late", "failed", "budget", "no_model"]

CALL_S = 10.0
"""Bound of a call apart from the deadline, which comes first."""
KNOWN_S = 5.0
"""For how long a process takes a model to be the active one. The one before it is kept up to date for longer."""


class QueryVector(NamedTuple):
    """`literal` is the text of a `halfvec`; it may be compared with vectors of this model only."""

    model_id: int
    literal: str


class Late(NamedTuple):
    """There is no vector in time: search by words."""

    reason: Reason


Meaning: TypeAlias = QueryVector | Late


class Active(NamedTuple):
    model_id: int
    name: str


class QueryEmbedder:
    """One per worker process."""

    def __init__(self, settings: Settings, pool: Pool, prices: PriceList) -> None:
        self._pool, self._prices, self._shelf = pool, prices, Shelf(settings)
        self._deadline_s = settings.embedding_deadline_ms / 1000
        self._terms = terms_of(settings)
        self._cache = VectorCache(settings.embedding_cache_bytes)
        self._active: Active | None = None
        self._known_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def embed_query(self, work: Work, spending: Spending, text: str) -> Meaning:
        """The question's vector, or why there is none; never later than the deadline.

        Raises LeaseLost when the job is no longer ours, nothing else.
        """
        meaning = await self._meaning(work, spending, text)
        metrics.query("vector" if isinstance(meaning, QueryVector) else meaning.reason)
        return meaning

    async def prepare(self) -> None:
        """Learn the active model and load it, if it is the local one: the first question need not wait for that."""
        await self._learn()
        embedder = self._embedder()
        if embedder is not None:
            await embedder.prepare()

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await self._shelf.aclose()

    async def _meaning(self, work: Work, spending: Spending, text: str) -> Meaning:
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._know()
                active, embedder = self._active, self._embedder()
                if active is None or embedder is None:
                    return Late("no_model")
                vector = self._cache.get(active.name, text) or await self._embedded(work, spending, embedder, text)
        except TimeoutError:
            return Late("late")
        except (UpstreamError, Unavailable, AgentError) as error:
            log.warning("embeddings.query_failed", code=error.code, fault=str(error))
            return Late("failed")
        if isinstance(vector, Late):
            return vector
        self._cache.put(active.name, text, vector)
        return QueryVector(active.model_id, halfvec(vector))

    async def _embedded(self, work: Work, spending: Spending, embedder: Embedder, text: str) -> Vector | Late:
        if embedder.free:
            embedded = await embedder.embed([text], "query", timeout_s=CALL_S)
            return embedded.vectors[0] or Late("failed")
        call = open_embedding(_row(work, embedder), embedder.count(text), self._prices)
        held = await spending.reserve([call], terms=[f"{self._terms} {call.row.input_tokens} 0"])
        if not isinstance(held, Held):
            return Late("budget" if isinstance(held, Blocked) else "failed")
        try:
            embedded = await embedder.embed([text], "query", timeout_s=CALL_S)
        except UpstreamError as error:
            spending.settle(call.failed(error), told_of(error))
            raise
        except BaseException:
            spending.settle(call.aborted())
            raise
        spending.settle(self._exact(call, embedded), "ok -")
        return embedded.vectors[0] or Late("failed")

    def _exact(self, call: Call, embedded: Embedded) -> LedgerRow:
        """By the provider's own account."""
        used, row = Usage(input_tokens=embedded.tokens[0]), call.row
        charge = self._prices.price(row.provider, row.model, used, datetime.now(UTC))
        return call.embedded(
            used.input_tokens,
            charge.cost_nano_usd,
            estimated=bool(embedded.raw_usage.get("estimated")),
            model_used=embedded.model,
            request_id=embedded.request_id,
            raw_usage=dict(embedded.raw_usage),
        )

    def _embedder(self) -> Embedder | None:
        return self._shelf.get(self._active.name) if self._active else None

    async def _know(self) -> None:
        """The active model as of the last few seconds; only the first question of a process waits to be told."""
        if time.monotonic() - self._known_at < KNOWN_S:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._learn())
        if self._known_at == float("-inf"):
            await asyncio.shield(self._asking)

    async def _learn(self) -> None:
        try:
            row = await self._pool.fetchrow(queries["active_embedding_model"])
        except Unavailable:
            return  # what was known stays; the turn itself waits for Postgres
        self._active = Active(row["model_id"], row["name"]) if row else None
        self._known_at = time.monotonic()


@contextlib.asynccontextmanager
async def recollection(settings: Settings, pool: Pool, prices: PriceList) -> AsyncIterator[QueryEmbedder]:
    """For as long as the block lasts; the local model is loaded meanwhile, nobody waits for it."""
    embedder = QueryEmbedder(settings, pool, prices)
    preparing = asyncio.create_task(embedder.prepare())
    preparing.add_done_callback(_prepared)
    try:
        yield embedder
    finally:
        preparing.cancel()
        await asyncio.wait([preparing])
        await embedder.aclose()


def _prepared(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("embeddings.unprepared", exc_info=error)


def _row(work: Work, embedder: Embedder) -> LedgerRow:
    payload, job = work.payload, work.job
    return LedgerRow(
        call_id=uuid7(),
        job_id=payload.job_id,
        run=job.run,
        attempt=job.attempt,
        agent=payload.agent,
        conversation_id=payload.conversation_id,
        user_id=work.user_id,
        domain=payload.domain,
        feature=payload.feature,
        provider=embedder.provider,
        model=embedder.model,
        started_us=time.time_ns() // 1_000,
        kind=KIND,
    )
