-- Recall: what a user's memory has for a question, in one statement, exact within the user.
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

-- Pieces for a question, best first, each with what it is worth. At most 400 are compared with their neighbours.
--   own      its words and its meaning: z(BM25) + 1.2 z(cosine)
--   chunk    half of z(BM25) and 0.8 of z(cosine) of its chunk, and a fifth of the chunks beside that one
--   speaker  1 for what was said by who is named in the question; when nobody is, for what the user said
--   beside   a tenth of the piece before it, 0.3 more when that one asks something, and a fifth of the one after it
-- An item that has no vector yet counts as average. Nested loops are off because plans are made for users with few items.
CREATE FUNCTION rank_memory(
    p_tenant text, p_user text, p_query text, p_model smallint, p_embedding halfvec, p_limit integer,
    OUT item_id bigint, OUT score double precision, OUT words double precision, OUT meaning double precision,
    OUT pieces bigint)
RETURNS SETOF record LANGUAGE plpgsql STABLE SET search_path = public, pg_temp SET enable_nestloop = off AS $$
#variable_conflict use_column
DECLARE
    v_words integer[];
    v_low sparsevec;
    v_high sparsevec;
    v_floor real := (SELECT floor FROM embedding_models WHERE model_id = p_model);
BEGIN
    SELECT q.words, q.low, q.high INTO v_words, v_low, v_high FROM memory_question(p_query) AS q;
    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT i.item_id, i.kind = 'piece' AS is_piece, i.chunk_id, i.previous_id, i.role, i.speaker, i.asks,
            i.words AS length,
            (-(i.terms <#> v_low))::bigint
                + CASE WHEN cardinality(v_words) > 24 THEN (-(i.terms <#> v_high))::bigint << 24 ELSE 0 END AS has,
            1 - (e.embedding <=> p_embedding) AS cosine
        FROM memory_items AS i
        LEFT JOIN memory_embeddings AS e ON e.tenant_id = p_tenant AND e.user_id = p_user AND e.model_id = p_model
            AND e.item_id = i.item_id AND p_embedding IS NOT NULL
        WHERE i.tenant_id = p_tenant AND i.user_id = p_user AND (i.expires_at IS NULL OR i.expires_at > now())),
    kind AS MATERIALIZED (
        SELECT is_piece, count(*) AS items, avg(length) AS length, avg(cosine) AS cosine,
            nullif(stddev_pop(cosine), 0) AS cosine_spread
        FROM item GROUP BY is_piece),
    wordset AS MATERIALIZED (SELECT is_piece, has, count(*) AS items FROM item WHERE has <> 0 GROUP BY is_piece, has),
    rarity AS (
        SELECT w.is_piece, bit, ln(1 + (k.items - sum(w.items) + 0.5) / (sum(w.items) + 0.5))::double precision AS idf
        FROM wordset AS w JOIN kind AS k USING (is_piece)
        CROSS JOIN generate_series(0, cardinality(v_words) - 1) AS bit
        WHERE (w.has >> bit) & 1 = 1 GROUP BY w.is_piece, bit, k.items),
    worth AS (
        SELECT w.is_piece, w.has, sum(r.idf) AS idf
        FROM wordset AS w JOIN rarity AS r ON r.is_piece = w.is_piece AND (w.has >> r.bit) & 1 = 1 GROUP BY 1, 2),
    -- BM25 with k1 = 1.2 and b = 0.4; a word counts once, however often it is said.
    told AS MATERIALIZED (
        SELECT i.*, coalesce(w.idf * 2.2 / (1.72 + 0.48 * i.length / k.length), 0) AS bm25,
            coalesce((i.cosine - k.cosine) / k.cosine_spread, 0) AS z_cosine
        FROM item AS i JOIN kind AS k ON k.is_piece = i.is_piece
        LEFT JOIN worth AS w ON w.is_piece = i.is_piece AND w.has = i.has),
    spread AS (
        SELECT is_piece, avg(bm25) AS bm25, nullif(stddev_pop(bm25), 0) AS bm25_spread FROM told GROUP BY is_piece),
    scaled AS MATERIALIZED (
        SELECT t.*, coalesce((t.bm25 - s.bm25) / s.bm25_spread, 0) AS z_bm25
        FROM told AS t JOIN spread AS s ON s.is_piece = t.is_piece),
    chunk AS MATERIALIZED (
        SELECT item_id, previous_id, has, cosine, 0.5 * z_bm25 + 0.8 * z_cosine AS score FROM scaled WHERE NOT is_piece),
    context AS (
        SELECT c.item_id, c.has, c.cosine, c.score + 0.2 * (coalesce(b.score, 0) + coalesce(a.score, 0)) AS score
        FROM chunk AS c LEFT JOIN chunk AS b ON b.item_id = c.previous_id LEFT JOIN chunk AS a ON a.previous_id = c.item_id),
    piece AS MATERIALIZED (
        SELECT s.item_id, s.previous_id, s.role, s.speaker, s.asks, s.bm25, s.cosine,
            s.z_bm25 + 1.2 * s.z_cosine + coalesce(c.score, 0) AS score,
            s.has <> 0 OR c.has <> 0 OR s.cosine >= v_floor OR c.cosine >= v_floor AS alike
        FROM scaled AS s LEFT JOIN context AS c ON c.item_id = s.chunk_id WHERE s.is_piece),
    near AS MATERIALIZED (SELECT * FROM piece ORDER BY score DESC, item_id LIMIT 400),
    named AS MATERIALIZED (  -- proper names only: a question that has the word "support" does not name an agent
        SELECT speaker FROM (SELECT DISTINCT speaker FROM near) AS called
        WHERE speaker ~ '^[[:upper:]]' AND speaker <> 'User' AND memory_words(speaker) <@ v_words),
    spoken AS (
        SELECT p.item_id, p.previous_id, p.asks,
            p.score + CASE WHEN CASE WHEN EXISTS (SELECT FROM named) THEN p.speaker IN (SELECT speaker FROM named)
                ELSE p.role = 'user' END THEN 1 ELSE 0 END AS score
        FROM piece AS p)
    SELECT n.item_id,
        s.score + coalesce((0.1 + CASE WHEN b.asks THEN 0.3 ELSE 0 END) * b.score, 0) + 0.2 * coalesce(a.score, 0) AS score,
        n.bm25, n.cosine, (SELECT items FROM kind WHERE is_piece)
    FROM near AS n JOIN spoken AS s ON s.item_id = n.item_id
    LEFT JOIN spoken AS b ON b.item_id = n.previous_id LEFT JOIN spoken AS a ON a.previous_id = n.item_id
    WHERE n.alike OR (SELECT items FROM kind WHERE is_piece) <= 20
    ORDER BY 2 DESC, 1 LIMIT p_limit;
END
$$;

-- The best pieces that p_tokens have room for, p_limit at most, as {mode, items, hits}; mode: by words, by meaning too
-- (`both`), or `nothing` to search for or in. What stands in the prompt already, p_conversation from p_from_seq on, is
-- left out. A question without an embedding, or with one of a model that does not serve, is searched by its words.
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
            p_tenant, p_user, p_query, p_model, CASE WHEN v_by_meaning THEN p_embedding END, 400)
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
        'mode', CASE WHEN v_pieces = 0 THEN 'nothing' WHEN v_by_meaning THEN 'both' ELSE 'words' END,
        'items', v_pieces, 'hits', to_jsonb(v_hits));
END
$$;
