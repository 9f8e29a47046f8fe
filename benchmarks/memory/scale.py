"""A million memories over a thousand tenants: how large they are, how fast they are written, and how fast recalled.

They are put there by SQL alone, interleaved as they would come in (a turn's two messages beside each other, then those
of other tenants), with random words and vectors. Then the product's writer adds 10,000 messages, and questions are
asked one after the other, of users with 1,000 messages and of one who has 25,000. What recall finds is held against a
ranking in plain Python, which looks at everything; its time stands beside a bare look at the same words and vectors.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from benchmarks.memory import reference, store
from benchmarks.memory.store import Line
from shared.db import Pool
from sql import queries

DIMENSIONS = 384
LARGE = 25_000
"""Messages of the user of tenant t0; all others have `memories / tenants` each."""
WRITTEN = 10_000
QUESTIONS = 200
COMPARED = 5
"""Questions whose first ten are held against the reference's, of each kind of user."""
WORDS = 5_000
POOL = 20_000
"""Different sentences and vectors, of which items are put together."""

FILL = """
SET session_replication_role = replica;  -- no foreign keys: the rows are consistent by construction
CREATE UNLOGGED TABLE pool AS
SELECT n, body, cardinality(words) AS words, memory_terms(words) AS terms, embedding
FROM generate_series(0, {pool} - 1) AS n
CROSS JOIN LATERAL (
    SELECT string_agg('w' || floor({words} * power(random(), 3))::integer || 'x', ' ') AS body
    FROM generate_series(1, 12 + 0 * n)) AS said
CROSS JOIN LATERAL memory_words(body) AS words
CROSS JOIN LATERAL (
    SELECT array_agg(random() - 0.5)::real[]::halfvec AS embedding
    FROM generate_series(1, {dimensions} + 0 * n)) AS meant;
CREATE INDEX ON pool (n);
CREATE UNLOGGED TABLE plan AS
SELECT 't' || t AS tenant_id, i AS seq, (i * ({tenants} + 1) + t) * 2 AS item_id,
    ((i - 1) / 4 * 4 + 1) * ({tenants} + 1) * 2 + t * 2 + 1 AS chunk_id,
    floor(random() * {pool})::integer AS a, floor(random() * {pool})::integer AS b,
    ((i - 1) / 2)::float / CASE t WHEN 0 THEN {large} ELSE {each} END AS at
FROM generate_series(0, {tenants}) AS t
CROSS JOIN LATERAL generate_series(1, CASE t WHEN 0 THEN {large} ELSE {each} END) AS i
ORDER BY at, hashint8(((i - 1) / 2)::bigint * 1000003 + t), i;
INSERT INTO embedding_models (name, dimensions, floor, state) VALUES ('bench:random', {dimensions}, 0.2, 'active');
INSERT INTO conversations (tenant_id, conversation_id, user_id, created_at, updated_at)
SELECT 't' || t, 'c', 'u', now(), now() FROM generate_series(0, {tenants}) AS t;
INSERT INTO messages (tenant_id, conversation_id, seq, message_id, job_id, role, agent, body, created_at)
SELECT tenant_id, 'c', seq, gen_random_uuid(), gen_random_uuid(), CASE seq % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
    'support', body, now() FROM plan JOIN pool ON n = a;
INSERT INTO memory_items (tenant_id, user_id, item_id, kind, conversation_id, seq, seq_to, chunk_id, previous_id, role,
    speaker, chars, tokens, words, terms, said_at)
SELECT tenant_id, 'u', item_id, 'piece', 'c', seq, seq, chunk_id,
    CASE WHEN seq > 1 THEN item_id - ({tenants} + 1) * 2 END, CASE seq % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
    CASE seq % 2 WHEN 1 THEN 'User' ELSE 'support' END, length(body), 30, words, terms, now()
FROM plan JOIN pool ON n = a;
INSERT INTO memory_items (tenant_id, user_id, item_id, kind, conversation_id, seq, seq_to, previous_id, tokens, words,
    terms, said_at)
SELECT tenant_id, 'u', chunk_id, 'chunk', 'c', seq, seq + 3, CASE WHEN seq > 1 THEN chunk_id - 8 * ({tenants} + 1) END,
    120, cardinality(found.words), memory_terms(found.words), now()
FROM (
    SELECT tenant_id, chunk_id, min(seq) AS seq, string_agg(body, ' ') AS body, min(at) AS at
    FROM plan JOIN pool ON n = a GROUP BY 1, 2 ORDER BY at, hashtext(tenant_id)) AS chunk
CROSS JOIN LATERAL memory_words(body) AS found(words);
INSERT INTO memory_embeddings (tenant_id, user_id, model_id, item_id, embedding)
SELECT tenant_id, 'u', 1, item_id, l2_normalize(a.embedding + b.embedding)
FROM plan JOIN pool AS a ON a.n = a JOIN pool AS b ON b.n = b ORDER BY at, hashint8((seq - 1) / 2), tenant_id, seq;
INSERT INTO memory_embeddings (tenant_id, user_id, model_id, item_id, embedding)
SELECT tenant_id, 'u', 1, chunk_id, l2_normalize(avg(a.embedding + b.embedding))
FROM plan JOIN pool AS a ON a.n = a JOIN pool AS b ON b.n = b GROUP BY tenant_id, chunk_id
ORDER BY min(at), hashtext(tenant_id);
DROP TABLE plan;
VACUUM ANALYZE;
"""

BARE = """
SELECT (SELECT min(terms <#> (SELECT low FROM memory_question($2)))
        FROM memory_items WHERE tenant_id = $1 AND user_id = 'u'),
    (SELECT min(embedding <#> (SELECT $3::real[]::halfvec))
        FROM memory_embeddings WHERE tenant_id = $1 AND user_id = 'u' AND model_id = 1)
FROM set_config('switchboard.tenant', $1, true)"""
"""All a user's words and vectors looked at once, each by itself, and nothing made of it."""


class Size(NamedTuple):
    memories: int
    tenants: int


Row = tuple[str, str]
Say = Callable[[str], None]


async def fill_and_ask(size: Size, progress: Say) -> list[Row]:
    """Name and value of what was measured."""
    async with store.open_database("2GB") as (ops, app, superuser_sql):
        progress(f"filling: {size.memories:,} messages of {size.tenants:,} tenants, {LARGE:,} of one more …")
        began_s = time.perf_counter()
        each = size.memories // size.tenants
        script = FILL.format(
            tenants=size.tenants, each=each, large=LARGE, dimensions=DIMENSIONS, words=WORDS, pool=POOL
        )
        superuser_sql(f"\\connect switchboard\n{script}")
        rows = [("filled by SQL in", f"{time.perf_counter() - began_s:.0f} s"), *await _sizes(ops)]
        progress("writing …")
        rows += await _write(ops)
        for name, tenants in ((f"{each:,}", range(1, size.tenants + 1)), (f"{LARGE:,}", range(1))):
            progress(f"asking users with {name} messages …")
            rows += await _ask(ops, app, f"a user with {name} messages", tenants)
        return rows


async def _sizes(ops: Pool) -> list[Row]:
    rows = []
    for table in ("memory_items", "memory_embeddings"):
        found = await ops.fetchrow(
            f"SELECT pg_table_size('{table}') AS heap, pg_indexes_size('{table}') AS indexes, "  # noqa: S608
            f"(SELECT count(*) FROM {table}) AS items"
        )
        assert found is not None
        mib, index_mib = found["heap"] / 2**20, found["indexes"] / 2**20
        rows.append((table, f"{found['items']:,} rows, {mib:,.0f} MiB and {index_mib:,.0f} MiB of indexes"))
    return rows


async def _write(ops: Pool) -> list[Row]:
    """The product's way in, onto the full tables: chunks and words first, vectors (random ones) after."""
    draw = random.Random(7)  # noqa: S311
    now = datetime.now(UTC) - timedelta(days=1)
    for user in range(10):
        lines = [
            Line(f"written-{user}", seq, ("assistant", "user")[seq % 2], "support", _words(draw, 24), now)
            for seq in range(1, WRITTEN // 10 + 1)
        ]
        await store.say(ops, "written", f"user-{user}", "Ann", lines)
    began_s = time.perf_counter()
    await store.write_all(ops)
    written_s = time.perf_counter() - began_s
    await ops.execute("UPDATE memory_pending SET due_at = now()")
    vectors, embedded, began_s = [str(_vector(draw)) for _ in range(64)], 0, time.perf_counter()
    while (found := await store.claim(ops, 1, 64)).items:
        await ops.execute(queries["write_embeddings"], 1, found.items, found.versions, vectors[: len(found.items)])
        embedded += len(found.items)
    embedded_s = time.perf_counter() - began_s
    return [
        ("messages a second through the writer", f"{WRITTEN / written_s:,.0f}"),
        ("vectors a second, claimed and written", f"{embedded / embedded_s:,.0f}"),
    ]


async def _ask(ops: Pool, app: Pool, who: str, tenants: Sequence[int]) -> list[Row]:
    draw = random.Random(8)  # noqa: S311
    waits_ms, bare_ms, same = [], [], []
    for warm in (True, False):  # once unmeasured: plans are made, and what is asked for is in memory
        draw.seed(8)
        for number in range(QUESTIONS):
            tenant, question, vector = f"t{draw.choice(tenants)}", _words(draw, 8), _vector(draw)
            began_s = time.perf_counter()
            await app.fetchval(queries["recall"], tenant, "u", question, 1, vector, 1_500, 20, None, None)
            asked_s = time.perf_counter()
            await app.fetchval(BARE, tenant, question, vector)
            if not warm:
                waits_ms.append((asked_s - began_s) * 1_000)
                bare_ms.append((time.perf_counter() - asked_s) * 1_000)
            if not warm and number >= QUESTIONS - COMPARED:
                same.append(await _agreement(ops, tenant, question, vector))
    p50, *_, p95, _, _, _, p99 = statistics.quantiles(waits_ms, n=100)[49:]
    return [
        (f"{who}: p50 / p95 / p99", f"{p50:.1f} / {p95:.1f} / {p99:.1f} ms"),
        (f"{who}: a bare look at all words and vectors, p50", f"{statistics.median(bare_ms):.1f} ms"),
        (f"{who}: first ten as in the exact ranking", f"{statistics.fmean(same):.2f}"),
    ]


async def _agreement(ops: Pool, tenant: str, question: str, vector: list[float]) -> float:
    rows = await ops.fetch(
        "SELECT item_id FROM rank_memory($1, 'u', $2, 1::smallint, $3::real[]::halfvec, 10)", tenant, question, vector
    )
    exact = [item for item, _ in (await reference.ranked(ops, tenant, "u", question, 1, vector))[:10]]
    found = {row["item_id"] for row in rows}
    return len(found.intersection(exact)) / len(exact) if exact else float(not found)


def _words(draw: random.Random, count: int) -> str:
    return " ".join(f"w{int(WORDS * draw.random() ** 3)}x" for _ in range(count))


def _vector(draw: random.Random) -> list[float]:
    return [draw.random() - 0.5 for _ in range(DIMENSIONS)]
