"""Recall on LoCoMo through the product's own writer and `recall`, with the local embedding model; `make bench-memory`.

Each conversation is a user of a tenant of his own, each of its sessions a conversation; everything is said again
through the outbox, embedded, and then every question is asked. Nothing is tuned per conversation. Beside it what full
text and vectors find by themselves in the same rows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from benchmarks.memory import store
from benchmarks.memory.judge import Marks, marks
from benchmarks.memory.locomo import Question, Sample
from benchmarks.memory.store import Line
from shared.db import Pool
from sql import queries
from workers.ledger import tokens

USER = "user"
DEPTH = 100
"""Hits that are looked at for a question."""
EVERYTHING = 1_000_000

FULL_TEXT = """
WITH asked AS (
    SELECT string_agg(quote_literal(lexeme), ' | ')::tsquery AS query
    FROM unnest(to_tsvector('pg_catalog.english', $3)) WHERE $1 <> '')
SELECT i.conversation_id, i.seq FROM asked, memory_items AS i JOIN messages AS m USING (tenant_id, conversation_id, seq)
WHERE i.tenant_id = $1 AND i.user_id = $2 AND i.kind = 'piece'
    AND to_tsvector('pg_catalog.english', i.speaker || ': ' || m.body) @@ asked.query
ORDER BY ts_rank(to_tsvector('pg_catalog.english', i.speaker || ': ' || m.body), asked.query) DESC, 1, 2 LIMIT $4"""
VECTORS = """
SELECT i.conversation_id, i.seq FROM memory_items AS i JOIN memory_embeddings AS e USING (tenant_id, user_id, item_id)
WHERE tenant_id = $1 AND user_id = $2 AND i.kind = 'piece' AND e.model_id = $4
ORDER BY e.embedding <=> $3::real[]::halfvec, 1, 2 LIMIT $5"""


class Embed(Protocol):
    """Texts to vectors of unit length."""

    def __call__(self, texts: Sequence[str], /, *, query: bool = False) -> Awaitable[Sequence[Sequence[float]]]: ...


@dataclass
class Results:
    """By method: what each question came to, and whether its conversation was held out."""

    rows: dict[str, list[tuple[int, bool, Marks]]] = field(default_factory=dict)

    def add(self, method: str, question: Question, found: Marks, *, held_out: bool) -> None:
        self.rows.setdefault(method, []).append((question.category, held_out, found))


async def measure(
    samples: Sequence[Sample], embed: Embed, *, dimensions: int, tuned_on: int, progress: Callable[[str], None]
) -> Results:
    results = Results()
    async with store.open_database() as (ops, app, _):
        model = await store.add_model(ops, "local:benchmark", dimensions, 0.2)
        for place, sample in enumerate(samples):
            await _remember(ops, model, sample, embed)
            await _ask_all(ops, app, model, sample, embed, results, held_out=place >= tuned_on)
            progress(sample.id)
    return results


async def _remember(ops: Pool, model: int, sample: Sample, embed: Embed) -> None:
    await store.say(ops, sample.id, USER, sample.speakers[0], list(_lines(sample)))
    await store.write_all(ops)
    await ops.execute(
        "UPDATE memory_pending SET due_at = now()"
    )  # the last chunks of all conversations stay as they are
    while (found := await store.claim(ops, model, 64)).items:
        vectors = [str(list(vector)) for vector in await embed(found.texts)]
        await ops.execute(queries["write_embeddings"], model, found.items, found.versions, vectors)
    await ops.execute("ANALYZE")


def _lines(sample: Sample) -> list[Line]:
    lines, seq = [], 0
    for turn in sample.turns:
        role = "user" if turn.speaker == sample.speakers[0] else "assistant"
        seq = int(turn.id.partition(":")[2])
        lines.append(Line(f"session-{turn.session}", seq, role, turn.speaker, turn.text, turn.said_at))
    return lines


async def _ask_all(
    ops: Pool, app: Pool, model: int, sample: Sample, embed: Embed, results: Results, *, held_out: bool
) -> None:
    ids = {(line.conversation, line.seq): turn.id for line, turn in zip(_lines(sample), sample.turns, strict=True)}
    sizes = {turn.id: tokens.count(f"{turn.speaker}: {turn.text}") for turn in sample.turns}
    vectors = await embed([question.text for question in sample.questions], query=True)
    for question, vector in zip(sample.questions, vectors, strict=True):
        for method, found in (await _found(ops, app, model, sample.id, question.text, list(vector))).items():
            places = list(dict.fromkeys(ids[place] for place in found))
            results.add(method, question, marks(question, places, sizes), held_out=held_out)


async def _found(
    ops: Pool, app: Pool, model: int, tenant: str, question: str, vector: list[float]
) -> Mapping[str, list[tuple[str, int]]]:
    """Conversation and number of what each method finds, best first."""
    by_text = await ops.fetch(FULL_TEXT, tenant, USER, question, DEPTH)
    by_vector = await ops.fetch(VECTORS, tenant, USER, vector, model, DEPTH)
    return {
        "full text alone (any word, ts_rank)": [(row["conversation_id"], row["seq"]) for row in by_text],
        "vectors alone (cosine)": [(row["conversation_id"], row["seq"]) for row in by_vector],
        "recall by words": await _recalled(app, tenant, question, None, None),
        "recall": await _recalled(app, tenant, question, model, vector),
    }


async def _recalled(
    app: Pool, tenant: str, question: str, model: int | None, vector: list[float] | None
) -> list[tuple[str, int]]:
    answer = await app.fetchval(queries["recall"], tenant, USER, question, model, vector, EVERYTHING, DEPTH, None, None)
    return [(hit["conversation_id"], hit["seq"]) for hit in msgspec.json.decode(answer)["hits"]]
