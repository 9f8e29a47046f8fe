-- Recall for users with very many messages, cheaper.
--
-- The pieces of the chunks that were chosen were found by reading every item of the user, for want of an index: a third of
-- the time. Weights were reckoned as numeric. Pieces were put together twice. And 200 chunks of each kind are chosen, not
-- 300: what is found on LoCoMo hardly changes between 95 and 300 (docs/performance-product.md), and the time does.

CREATE INDEX memory_items_pieces ON memory_items (tenant_id, user_id, chunk_id, item_id) WHERE kind = 'piece';

-- What is looked at of a user with more than 1,000 chunks (some 4,000 messages): the 200 chunks that have most of the
-- question's words by their rarity, the 200 that are nearest to it, and their pieces. With it how rare each word is, by bit:
-- among what was chosen by its words every word is common. NULL for all other users: everything is looked at.
CREATE OR REPLACE FUNCTION shortlist_memory(
    p_tenant text, p_user text, p_words integer[], p_low sparsevec, p_high sparsevec, p_model smallint, p_meant halfvec,
    OUT items bigint[], OUT rarity double precision[])
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan SET work_mem = '32MB' SET jit = off AS $$
DECLARE
    v_chunks bigint[];
BEGIN
    IF (SELECT count(*) FROM (
        SELECT FROM memory_items WHERE tenant_id = p_tenant AND user_id = p_user AND kind = 'chunk' LIMIT 1001) AS counted
    ) <= 1000 THEN
        RETURN;
    END IF;
    WITH chunk AS MATERIALIZED (
        SELECT item_id, words::double precision AS length, (-(terms <#> p_low))::bigint
            + CASE WHEN cardinality(p_words) > 24 THEN (-(terms <#> p_high))::bigint << 24 ELSE 0 END AS has
        FROM memory_items
        WHERE tenant_id = p_tenant AND user_id = p_user AND kind = 'chunk' AND (expires_at IS NULL OR expires_at > now())),
    known AS MATERIALIZED (SELECT count(*)::double precision AS chunks, avg(length) AS length FROM chunk),
    wordset AS MATERIALIZED (SELECT has, count(*) AS chunks FROM chunk WHERE has <> 0 GROUP BY has),
    rare AS MATERIALIZED (
        SELECT bit, ln(1 + (k.chunks - coalesce(sum(w.chunks), 0) + 0.5) / (coalesce(sum(w.chunks), 0) + 0.5)) AS idf
        FROM known AS k CROSS JOIN generate_series(0, cardinality(p_words) - 1) AS bit
        LEFT JOIN wordset AS w ON (w.has >> bit) & 1 = 1 GROUP BY bit, k.chunks),
    worth AS (SELECT w.has, sum(r.idf) AS idf FROM wordset AS w JOIN rare AS r ON (w.has >> r.bit) & 1 = 1 GROUP BY w.has),
    chosen AS (
        (SELECT c.item_id FROM chunk AS c JOIN worth AS w ON w.has = c.has CROSS JOIN known AS k
            ORDER BY w.idf / (1.72 + 0.48 * c.length / k.length) DESC, c.item_id LIMIT 200)
        UNION
        (SELECT item_id FROM memory_embeddings
            WHERE tenant_id = p_tenant AND user_id = p_user AND model_id = p_model AND p_meant IS NOT NULL
                AND item_id = ANY (ARRAY(SELECT item_id FROM chunk))
            ORDER BY embedding <#> p_meant, item_id LIMIT 200))
    SELECT (SELECT array_agg(item_id) FROM chosen), (SELECT array_agg(idf ORDER BY bit) FROM rare) INTO v_chunks, rarity;
    SELECT v_chunks || array_agg(item_id) INTO items FROM memory_items
    WHERE tenant_id = p_tenant AND user_id = p_user AND kind = 'piece' AND chunk_id = ANY (v_chunks);
    items := coalesce(items, '{}');
END
$$;

-- Pieces for a question, best first, each with what it is worth. At most 200 are compared with their neighbours.
--   own      its words and its meaning: z(BM25) + 1.2 z(cosine)
--   chunk    half of z(BM25) and 0.8 of z(cosine) of its chunk, and a fifth of the chunks beside that one
--   speaker  1 for what was said by who is named in the question; when nobody is, for what the user said
--   beside   a tenth of the piece before it, 0.3 more when that one asks something, and a fifth of the one after it
-- An item that has no vector yet counts as average. Nested loops are off because plans are made for users with few items.
CREATE OR REPLACE FUNCTION rank_memory(
    p_tenant text, p_user text, p_query text, p_model smallint, p_embedding halfvec, p_limit integer,
    OUT item_id bigint, OUT score double precision, OUT words double precision, OUT meaning double precision,
    OUT pieces bigint)
RETURNS SETOF record LANGUAGE plpgsql STABLE SET search_path = public, pg_temp
SET enable_nestloop = off SET plan_cache_mode = force_generic_plan SET work_mem = '32MB' SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_words integer[];
    v_low sparsevec;
    v_high sparsevec;
    v_shortlist bigint[];
    v_rarity double precision[];
    v_meant halfvec := l2_normalize(p_embedding);
    v_floor real := (SELECT floor FROM embedding_models WHERE model_id = p_model);
BEGIN
    SELECT q.words, q.low, q.high INTO v_words, v_low, v_high FROM memory_question(p_query) AS q;
    SELECT s.items, s.rarity INTO v_shortlist, v_rarity
    FROM shortlist_memory(p_tenant, p_user, v_words, v_low, v_high, p_model, v_meant) AS s;
    RETURN QUERY
    WITH seen AS NOT MATERIALIZED (
        SELECT * FROM memory_items WHERE tenant_id = p_tenant AND user_id = p_user AND v_shortlist IS NULL
        UNION ALL
        SELECT * FROM memory_items WHERE tenant_id = p_tenant AND user_id = p_user AND item_id = ANY (v_shortlist)),
    meant AS NOT MATERIALIZED (
        SELECT item_id, embedding FROM memory_embeddings
        WHERE tenant_id = p_tenant AND user_id = p_user AND model_id = p_model AND v_meant IS NOT NULL AND v_shortlist IS NULL
        UNION ALL
        SELECT item_id, embedding FROM memory_embeddings
        WHERE tenant_id = p_tenant AND user_id = p_user AND model_id = p_model AND v_meant IS NOT NULL
            AND item_id = ANY (v_shortlist)),
    item AS MATERIALIZED (
        SELECT i.*, e.cosine
        FROM (
            SELECT item_id, kind = 'piece' AS is_piece, chunk_id, previous_id, words::double precision AS length,
                role = 'user' AS by_user, asks, speaker,
                (-(terms <#> v_low))::bigint
                    + CASE WHEN cardinality(v_words) > 24 THEN (-(terms <#> v_high))::bigint << 24 ELSE 0 END AS has
            FROM seen WHERE expires_at IS NULL OR expires_at > now()
            OFFSET 0) AS i  -- what is joined is small: the terms and the vector stay behind
        LEFT JOIN (
            SELECT item_id, -(embedding <#> v_meant) AS cosine FROM meant  -- both are of unit length
            OFFSET 0) AS e ON e.item_id = i.item_id),
    kind AS MATERIALIZED (
        SELECT is_piece, count(*)::double precision AS items, avg(length) AS length, avg(cosine) AS cosine,
            nullif(stddev_pop(cosine), 0) AS cosine_spread
        FROM item GROUP BY is_piece),
    wordset AS MATERIALIZED (SELECT is_piece, has, count(*) AS items FROM item WHERE has <> 0 GROUP BY is_piece, has),
    rarity AS (
        SELECT w.is_piece, bit,
            coalesce(v_rarity[bit + 1], ln(1 + (k.items - sum(w.items) + 0.5) / (sum(w.items) + 0.5))) AS idf
        FROM wordset AS w JOIN kind AS k ON k.is_piece = w.is_piece
        CROSS JOIN generate_series(0, cardinality(v_words) - 1) AS bit
        WHERE (w.has >> bit) & 1 = 1 GROUP BY w.is_piece, bit, k.items),
    worth AS MATERIALIZED (
        SELECT w.is_piece, w.has, sum(r.idf) AS idf
        FROM wordset AS w JOIN rarity AS r ON r.is_piece = w.is_piece AND (w.has >> r.bit) & 1 = 1 GROUP BY 1, 2),
    -- BM25 with k1 = 1.2 and b = 0.4; a word counts once, however often it is said. Of those without a word it is 0.
    spread AS MATERIALIZED (
        SELECT k.*, coalesce(found.total / k.items, 0) AS bm25,
            nullif(sqrt(greatest(found.squares / k.items - (found.total / k.items) ^ 2, 0)), 0) AS bm25_spread
        FROM kind AS k LEFT JOIN (
            SELECT i.is_piece, sum(b.bm25) AS total, sum(b.bm25 * b.bm25) AS squares
            FROM item AS i JOIN worth AS w ON w.is_piece = i.is_piece AND w.has = i.has
            JOIN kind AS k ON k.is_piece = i.is_piece
            CROSS JOIN LATERAL (SELECT w.idf * 2.2 / (1.72 + 0.48 * i.length / k.length) AS bm25) AS b
            WHERE i.has <> 0 GROUP BY i.is_piece) AS found ON found.is_piece = k.is_piece),
    chunk AS MATERIALIZED (
        SELECT i.item_id, i.previous_id, i.has, i.cosine,
            0.5 * coalesce((coalesce(w.idf * 2.2 / (1.72 + 0.48 * i.length / s.length), 0) - s.bm25) / s.bm25_spread, 0)
                + 0.8 * coalesce((i.cosine - s.cosine) / s.cosine_spread, 0) AS score
        FROM item AS i JOIN spread AS s ON NOT s.is_piece LEFT JOIN worth AS w ON NOT w.is_piece AND w.has = i.has
        WHERE NOT i.is_piece),
    context AS MATERIALIZED (
        SELECT c.item_id, c.has, c.cosine, c.score + 0.2 * (coalesce(b.score, 0) + coalesce(a.score, 0)) AS score
        FROM chunk AS c LEFT JOIN chunk AS b ON b.item_id = c.previous_id LEFT JOIN chunk AS a ON a.previous_id = c.item_id),
    piece AS MATERIALIZED (
        SELECT i.item_id, i.previous_id, i.by_user, i.asks, i.speaker, i.cosine, i.has, c.has AS chunk_has,
            c.cosine AS chunk_cosine, coalesce(w.idf * 2.2 / (1.72 + 0.48 * i.length / s.length), 0) AS bm25,
            coalesce((coalesce(w.idf * 2.2 / (1.72 + 0.48 * i.length / s.length), 0) - s.bm25) / s.bm25_spread, 0)
                + 1.2 * coalesce((i.cosine - s.cosine) / s.cosine_spread, 0) + coalesce(c.score, 0) AS score
        FROM item AS i JOIN spread AS s ON s.is_piece LEFT JOIN worth AS w ON w.is_piece AND w.has = i.has
        LEFT JOIN context AS c ON c.item_id = i.chunk_id
        WHERE i.is_piece),
    near AS MATERIALIZED (SELECT * FROM piece ORDER BY score DESC, item_id LIMIT 200),
    beside AS (
        SELECT item_id, previous_id, by_user, asks, speaker, score FROM piece
        WHERE item_id IN (SELECT previous_id FROM near) OR previous_id IN (SELECT item_id FROM near)
            OR item_id IN (SELECT item_id FROM near)),
    named AS MATERIALIZED (  -- proper names only: a question that has the word "support" does not name an agent
        SELECT speaker FROM (SELECT DISTINCT speaker FROM beside) AS called
        WHERE speaker ~ '^[[:upper:]]' AND speaker <> 'User' AND memory_words(speaker) <@ v_words),
    spoken AS MATERIALIZED (
        SELECT item_id, previous_id, asks, score + CASE WHEN CASE WHEN EXISTS (SELECT FROM named)
            THEN speaker IN (SELECT speaker FROM named) ELSE by_user END THEN 1 ELSE 0 END AS score
        FROM beside)
    SELECT n.item_id,
        s.score + coalesce((0.1 + CASE WHEN b.asks THEN 0.3 ELSE 0 END) * b.score, 0) + 0.2 * coalesce(a.score, 0) AS score,
        n.bm25, n.cosine, k.items::bigint
    FROM near AS n JOIN kind AS k ON k.is_piece JOIN spoken AS s ON s.item_id = n.item_id
    LEFT JOIN spoken AS b ON b.item_id = n.previous_id LEFT JOIN spoken AS a ON a.previous_id = n.item_id
    WHERE n.has <> 0 OR n.chunk_has <> 0 OR n.cosine >= v_floor OR n.chunk_cosine >= v_floor OR k.items <= 20
    ORDER BY 2 DESC, 1 LIMIT p_limit;
END
$$;
