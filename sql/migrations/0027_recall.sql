-- Recall: what a user's memory has for a question, in one round trip, exact within the user.
--
-- Words are BM25 over the user's own items (how rare a word is, is a matter of this user), meaning is the cosine. Each is
-- put on one scale (z: standard deviations from the mean of the user's items), for the piece itself and for the chunk it
-- stands in; a little of its neighbours is added, and whose words they are. decisions/0028 has what each part is worth.

-- A question's words, 48 at most: the longest, which are the rarest as a rule; of a very long message its beginning and
-- its end are asked. Each has a bit of its own, in two parts of 24: an inner product with an item's terms is the set of
-- those it has, exactly (a float4 keeps 24 bits).
CREATE FUNCTION memory_question(p_query text, OUT words integer[], OUT low sparsevec, OUT high sparsevec)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    WITH asked AS (
        SELECT memory_word(lexeme) AS word, max(length(lexeme)) AS chars
        FROM memory_lexemes(
            CASE WHEN length(p_query) > 4000 THEN left(p_query, 2000) || ' ' || right(p_query, 2000) ELSE p_query END
        ) AS lexeme GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 48),
    placed AS (SELECT word, (row_number() OVER (ORDER BY word) - 1)::integer AS bit FROM asked)
    SELECT coalesce(array_agg(word ORDER BY bit), '{}'),
        ('{' || coalesce(string_agg(word || ':' || (1 << bit), ',') FILTER (WHERE bit < 24), '') || '}/1000000000')::sparsevec,
        ('{' || coalesce(string_agg(word || ':' || (1 << (bit - 24)), ',') FILTER (WHERE bit >= 24), '')
            || '}/1000000000')::sparsevec
    FROM placed
$$;

-- What is looked at of a user with more than 1,000 chunks (some 4,000 messages): the 300 chunks that have most of the
-- question's words by their rarity, the 300 that are nearest to it, and their pieces. With it how rare each word is, by bit:
-- among what was chosen by its words every word is common. NULL for all other users: everything is looked at.
CREATE FUNCTION shortlist_memory(
    p_tenant text, p_user text, p_words integer[], p_low sparsevec, p_high sparsevec, p_model smallint, p_meant halfvec,
    OUT items bigint[], OUT rarity double precision[])
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp SET work_mem = '32MB' SET jit = off AS $$
DECLARE
    v_chunks bigint[];
BEGIN
    IF (SELECT count(*) FROM (
        SELECT FROM memory_items WHERE tenant_id = p_tenant AND user_id = p_user AND kind = 'chunk' LIMIT 1001) AS counted
    ) <= 1000 THEN
        RETURN;
    END IF;
    WITH chunk AS MATERIALIZED (
        SELECT item_id, words AS length, (-(terms <#> p_low))::bigint
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
            ORDER BY w.idf / (1.72 + 0.48 * c.length / k.length) DESC, c.item_id LIMIT 300)
        UNION
        (SELECT item_id FROM memory_embeddings
            WHERE tenant_id = p_tenant AND user_id = p_user AND model_id = p_model AND p_meant IS NOT NULL
                AND item_id = ANY (ARRAY(SELECT item_id FROM chunk))
            ORDER BY embedding <#> p_meant, item_id LIMIT 300))
    SELECT (SELECT array_agg(item_id) FROM chosen), (SELECT array_agg(idf ORDER BY bit) FROM rare) INTO v_chunks, rarity;
    SELECT array_agg(item_id) INTO items FROM memory_items
    WHERE tenant_id = p_tenant AND user_id = p_user
        AND coalesce(chunk_id, item_id) IN (SELECT unnest(v_chunks));
    items := coalesce(items, '{}');
END
$$;

-- Pieces for a question, best first, each with what it is worth. At most 200 are compared with their neighbours.
--   own      its words and its meaning: z(BM25) + 1.2 z(cosine)
--   chunk    half of z(BM25) and 0.8 of z(cosine) of its chunk, and a fifth of the chunks beside that one
--   speaker  1 for what was said by who is named in the question; when nobody is, for what the user said
--   beside   a tenth of the piece before it, 0.3 more when that one asks something, and a fifth of the one after it
-- An item that has no vector yet counts as average. Nested loops are off because plans are made for users with few items.
CREATE FUNCTION rank_memory(
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
    piece AS NOT MATERIALIZED (
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

-- The best pieces that p_tokens have room for, p_limit at most, as {mode, items, hits}: how it was searched, by `words` or
-- `both`, and how many pieces the user has (0 when none was like the question). What stands in the prompt already,
-- p_conversation from p_from_seq on, is left out. A question without an embedding, or with one of a model that does not
-- serve, is searched by its words.
CREATE FUNCTION recall(
    p_tenant text, p_user text, p_query text, p_model smallint, p_embedding halfvec, p_tokens integer, p_limit integer,
    p_conversation text, p_from_seq bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_by_meaning boolean := p_embedding IS NOT NULL AND EXISTS (
        SELECT FROM embedding_models
        WHERE model_id = p_model AND state IN ('building', 'active') AND dimensions = vector_dims(p_embedding));
    v_left integer := p_tokens;
    v_hits jsonb[] := '{}';
    v_pieces bigint := 0;
    v_found record;
    v_item memory_items;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    FOR v_found IN
        SELECT * FROM rank_memory(
            p_tenant, p_user, p_query, p_model, CASE WHEN v_by_meaning THEN p_embedding END, 200)
    LOOP
        v_pieces := v_found.pieces;
        EXIT WHEN cardinality(v_hits) >= p_limit OR v_left <= 0;
        SELECT * INTO v_item FROM memory_items
        WHERE tenant_id = p_tenant AND user_id = p_user AND item_id = v_found.item_id;
        CONTINUE WHEN v_item.tokens > v_left
            OR (v_item.conversation_id = p_conversation AND v_item.seq >= p_from_seq);
        v_left := v_left - v_item.tokens;
        v_hits := v_hits || jsonb_build_object(
            'conversation_id', v_item.conversation_id, 'seq', v_item.seq, 'part', v_item.part, 'role', v_item.role,
            'speaker', v_item.speaker, 'said_us', to_unix_us(v_item.said_at), 'tokens', v_item.tokens,
            'text', (SELECT substr(body, v_item.char_from, v_item.chars) FROM messages
                WHERE tenant_id = p_tenant AND conversation_id = v_item.conversation_id AND seq = v_item.seq),
            'score', round(v_found.score::numeric, 4), 'words', round(v_found.words::numeric, 4),
            'meaning', round(v_found.meaning::numeric, 4));
    END LOOP;
    RETURN jsonb_build_object(
        'mode', CASE WHEN v_by_meaning THEN 'both' ELSE 'words' END,
        'items', v_pieces, 'hits', to_jsonb(v_hits));
END
$$;
