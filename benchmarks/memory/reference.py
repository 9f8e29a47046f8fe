"""Recall's ranking once more, in plain Python over all of a user's items: nothing prefiltered, nothing clever.

What `rank_memory` (sql/migrations/0035_recall_of_many.sql) finds is held against it, by the tests and by the scale
benchmark.
"""

import math
import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.db import Pool

ITEMS = """
SELECT i.item_id, i.kind, i.chunk_id, i.previous_id, i.role, i.speaker, i.asks, i.words, i.terms::text AS terms,
    memory_words(i.speaker) AS called, (e.embedding::real[]) AS embedding
FROM memory_items AS i LEFT JOIN memory_embeddings AS e
    ON e.tenant_id = i.tenant_id AND e.user_id = i.user_id AND e.item_id = i.item_id AND e.model_id = $3
WHERE i.tenant_id = $1 AND i.user_id = $2"""


@dataclass
class Item:
    id: int
    kind: str
    chunk: int | None
    previous: int | None
    role: str | None
    speaker: str
    asks: bool
    length: int
    words: frozenset[int]
    called: frozenset[int]
    cosine: float | None
    bm25: float = 0.0
    z: dict[str, float] = field(default_factory=dict)


async def ranked(
    ops: Pool, tenant: str, user: str, query: str, model: int | None, vector: Sequence[float] | None
) -> list[tuple[int, float]]:
    """Pieces and their scores, best first. `ops` sees every tenant."""
    asked = frozenset(await ops.fetchval("SELECT words FROM memory_question($1)", query))
    floor = await ops.fetchval("SELECT floor FROM embedding_models WHERE model_id = $1", model)
    items = [_item(row, vector) for row in await ops.fetch(ITEMS, tenant, user, model)]
    return rank(items, asked, floor)


def rank(items: Sequence[Item], asked: frozenset[int], floor: float | None) -> list[tuple[int, float]]:
    pieces, chunks = ([item for item in items if item.kind == kind] for kind in ("piece", "chunk"))
    for part in (pieces, chunks):
        _weigh(part, asked)
    context = _context(chunks)
    by_chunk = {chunk.id: chunk for chunk in chunks}
    own = {piece.id: piece.z["bm25"] + 1.2 * piece.z["cosine"] + context.get(piece.chunk or 0, 0.0) for piece in pieces}
    named = {piece.speaker for piece in pieces if _is_named(piece, asked)}
    spoken = {piece.id: own[piece.id] + _bonus(piece, named) for piece in pieces}
    after = {piece.previous: piece.id for piece in pieces if piece.previous}
    asks = {piece.id: piece.asks for piece in pieces}
    found = []
    for piece in pieces:
        score = spoken[piece.id] + 0.2 * spoken.get(after.get(piece.id, 0), 0.0)
        if piece.previous in spoken:
            score += (0.4 if asks[piece.previous] else 0.1) * spoken[piece.previous]
        if len(pieces) <= 20 or _is_alike(piece, by_chunk.get(piece.chunk or 0), asked, floor):
            found.append((piece.id, score))
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def _item(row: Mapping[str, object], vector: Sequence[float] | None) -> Item:
    words = frozenset(
        int(term.partition(":")[0]) for term in str(row["terms"])[1:].partition("}")[0].split(",") if term
    )
    embedding = row["embedding"] if vector is not None else None
    return Item(
        id=row["item_id"], kind=row["kind"], chunk=row["chunk_id"], previous=row["previous_id"], role=row["role"],
        speaker=row["speaker"], asks=row["asks"], length=row["words"], words=words, called=frozenset(row["called"]),
        cosine=None if embedding is None else _cosine(embedding, vector),
    )  # fmt: skip


def _cosine(a: Sequence[float], b: Sequence[float]) -> float | None:
    lengths = math.sqrt(_dot(a, a) * _dot(b, b))
    return _dot(a, b) / lengths if lengths else None


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(operator.mul, a, b))


def _weigh(items: Sequence[Item], asked: frozenset[int]) -> None:
    """BM25 with k1 = 1.2, b = 0.4 over these items, each word counted once; then both in standard deviations."""
    if not items:
        return
    length = sum(item.length for item in items) / len(items)
    idf = {}
    for word in asked:
        having = sum(word in item.words for item in items)
        idf[word] = math.log(1 + (len(items) - having + 0.5) / (having + 0.5))
    for item in items:
        matched = sum(idf[word] for word in asked & item.words)
        item.bm25 = matched * 2.2 / (1.72 + 0.48 * item.length / length) if matched else 0.0
    for name, value in (("bm25", lambda item: item.bm25), ("cosine", lambda item: item.cosine)):
        _standardise(items, name, value)


def _standardise(items: Sequence[Item], name: str, value: Callable[[Item], float | None]) -> None:
    known = [found for item in items if (found := value(item)) is not None]
    mean, spread = (statistics.fmean(known), statistics.pstdev(known)) if known else (0.0, 0.0)
    for item in items:
        found = value(item)
        item.z[name] = (found - mean) / spread if found is not None and spread else 0.0


def _context(chunks: Sequence[Item]) -> dict[int, float]:
    own = {chunk.id: 0.5 * chunk.z["bm25"] + 0.8 * chunk.z["cosine"] for chunk in chunks}
    smooth = dict(own)
    for chunk in chunks:
        if chunk.previous in own:
            smooth[chunk.id] += 0.2 * own[chunk.previous]
            smooth[chunk.previous] += 0.2 * own[chunk.id]
    return smooth


def _is_named(piece: Item, asked: frozenset[int]) -> bool:
    return piece.speaker[:1].isupper() and piece.speaker != "User" and piece.called <= asked


def _bonus(piece: Item, named: set[str]) -> float:
    return float(piece.speaker in named if named else piece.role == "user")


def _is_alike(piece: Item, chunk: Item | None, asked: frozenset[int], floor: float | None) -> bool:
    near = [item for item in (piece, chunk) if item]
    by_words = any(asked & item.words for item in near)
    return by_words or any(item.cosine is not None and floor is not None and item.cosine >= floor for item in near)
