-- What users said before, found again: by words at once, by meaning as soon as it is embedded.
--
-- No text is copied. An item points into `messages`, its words stand beside it as hashed terms, its meaning as one vector
-- for each embedding model; what is deleted there is gone here (CASCADE). A user's items are few enough to be looked at
-- one by one, so there is no approximate index, which would lose rows behind the filter on the user (decisions/0028),
-- and vectors of any dimension share one table. 0027 has the search.

-- Deployment-wide. A model is `building` until every item has its vector, then it may become the `active` one, which
-- recall uses; a `retiring` one gets no vectors any more while those it has are deleted.
CREATE TABLE embedding_models (
    model_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,  -- as the embedders call it: 'provider:model[@dimensions]'
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),
    floor real NOT NULL DEFAULT 0 CHECK (floor BETWEEN -1 AND 1),  -- cosine below which nothing is alike
    state text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'active', 'retiring', 'retired')),
    -- The last item, in the order of its key, that was looked at to find those that lack a vector.
    filled_tenant text NOT NULL DEFAULT '',
    filled_user text NOT NULL DEFAULT '',
    filled_item bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    retired_at timestamptz
);
CREATE UNIQUE INDEX embedding_models_active ON embedding_models (state) WHERE state = 'active';
REVOKE INSERT, UPDATE, DELETE ON embedding_models FROM switchboard_app;

CREATE FUNCTION memory_models_lock() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended('switchboard.embedding_models', 0)
$$;

-- Items written from now on know of the new model: it waits for those who are writing, and they for it.
CREATE FUNCTION await_memory_writers() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(memory_models_lock());
    RETURN NEW;
END
$$;
CREATE TRIGGER embedding_models_new BEFORE INSERT ON embedding_models
    FOR EACH ROW EXECUTE FUNCTION await_memory_writers();

-- Each batch of items has a block of ids for itself.
CREATE SEQUENCE memory_blocks INCREMENT 16777216;

-- A piece of a message (the whole of it, or one of the parts of a long one), or a chunk: neighbouring pieces of one
-- conversation, of about 150 tokens together. A chunk's text begins with the piece before its first one.
CREATE TABLE memory_items (
    -- What recall reads of every item comes first: columns cost what stands before them.
    item_id bigint NOT NULL,
    words integer NOT NULL CHECK (words >= 0),  -- different ones
    asks boolean NOT NULL DEFAULT false,  -- ends with a question: what comes after it answers
    kind text NOT NULL CHECK (kind IN ('piece', 'chunk')),
    role text CHECK (role IN ('user', 'assistant')),
    chunk_id bigint,  -- a piece's chunk
    previous_id bigint,  -- of the same kind, before it in the conversation, in the same sitting
    expires_at timestamptz,
    speaker text NOT NULL DEFAULT '',  -- how whoever said it is called in texts
    terms sparsevec(1000000000) NOT NULL,  -- 1 for each of its words, at the word's hash
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    conversation_id text NOT NULL,
    seq bigint NOT NULL,  -- of its message; a chunk's first
    seq_to bigint NOT NULL,
    part smallint NOT NULL DEFAULT 0 CHECK (part >= 0),  -- of a message in several parts
    char_from integer NOT NULL DEFAULT 1 CHECK (char_from >= 1),  -- the piece within its message's body, in characters
    chars integer NOT NULL DEFAULT 0 CHECK (chars >= 0),
    tokens integer NOT NULL CHECK (tokens >= 0),  -- of a chunk: of its pieces
    version integer NOT NULL DEFAULT 1,  -- of a chunk's text, which grows
    said_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, item_id),
    CONSTRAINT memory_items_once UNIQUE (tenant_id, conversation_id, seq, part, kind),
    CONSTRAINT pieces_have_a_chunk CHECK ((kind = 'piece') = (chunk_id IS NOT NULL)),
    FOREIGN KEY (tenant_id, conversation_id, seq) REFERENCES messages ON DELETE CASCADE
);
-- Of users with very many, recall looks at the chunks first.
CREATE INDEX memory_items_chunks ON memory_items (tenant_id, user_id, item_id) WHERE kind = 'chunk';
SELECT protect_table('memory_items');
REVOKE INSERT, UPDATE, DELETE ON memory_items FROM switchboard_app;

-- halfvec without a dimension: of whatever model; of unit length, so that the inner product is the cosine. Vectors stay in their row: out of line a scan takes 2.4 times as long.
CREATE TABLE memory_embeddings (
    item_id bigint NOT NULL,
    model_id smallint NOT NULL REFERENCES embedding_models,
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    embedding halfvec NOT NULL,
    PRIMARY KEY (tenant_id, user_id, model_id, item_id),
    FOREIGN KEY (tenant_id, user_id, item_id) REFERENCES memory_items ON DELETE CASCADE
) WITH (toast_tuple_target = 8160);
SELECT protect_table('memory_embeddings');
REVOKE INSERT, UPDATE, DELETE ON memory_embeddings FROM switchboard_app;

-- Items that still need a vector of a model. Written with the item, deleted with the vector.
CREATE TABLE memory_pending (
    model_id smallint NOT NULL REFERENCES embedding_models,
    item_id bigint NOT NULL,
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    due_at timestamptz NOT NULL DEFAULT now(),  -- not before: a chunk that may still grow; a pause; a claim's lease
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error text,
    PRIMARY KEY (model_id, item_id),
    FOREIGN KEY (tenant_id, user_id, item_id) REFERENCES memory_items ON DELETE CASCADE
);
CREATE INDEX memory_pending_due ON memory_pending (model_id, due_at);
CREATE INDEX memory_pending_item ON memory_pending (tenant_id, user_id, item_id);
SELECT protect_table('memory_pending');
REVOKE INSERT, UPDATE, DELETE ON memory_pending FROM switchboard_app;

-- A turn that cannot be written is put off, and with it those after it in its conversation.
ALTER TABLE memory_outbox
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    ADD COLUMN last_error text;

-- --- words ------------------------------------------------------------------------------------------------------------

-- A text's words, stemmed as English. Slashes part words; scripts without spaces are cut into pairs of characters.
CREATE FUNCTION memory_lexemes(p_text text) RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = public, pg_temp AS $$
    SELECT lexeme FROM unnest(to_tsvector('pg_catalog.english', translate(p_text, '/_', '  ')))
    UNION ALL
    SELECT substr(run[1], place, 2)
    FROM regexp_matches(p_text, '[぀-ヿ㐀-䶿一-鿿가-힣]+', 'g') AS run,
        generate_series(1, greatest(length(run[1]) - 1, 1)) AS place
    WHERE p_text ~ '[぀-ヿ㐀-䶿一-鿿가-힣]'
$$;

CREATE FUNCTION memory_word(p_lexeme text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 1 + (('x' || left(md5(p_lexeme), 8))::bit(32)::bigint % 1000000000)::integer
$$;

-- A text's different words as numbers from 1 to 1,000,000,000.
CREATE FUNCTION memory_words(p_text text) RETURNS integer[]
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = public, pg_temp AS $$
    SELECT coalesce(array_agg(DISTINCT memory_word(lexeme)), '{}') FROM memory_lexemes(p_text) AS lexeme
$$;

CREATE FUNCTION memory_terms(p_words integer[]) RETURNS sparsevec
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = public, pg_temp AS $$
    SELECT ('{' || coalesce(string_agg(word || ':1', ','), '') || '}/1000000000')::sparsevec FROM unnest(p_words) AS word
$$;

-- --- texts ------------------------------------------------------------------------------------------------------------

CREATE FUNCTION piece_text(p_piece memory_items) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT p_piece.speaker || ': ' || substr(body, p_piece.char_from, p_piece.chars) FROM messages
    WHERE tenant_id = p_piece.tenant_id AND conversation_id = p_piece.conversation_id AND seq = p_piece.seq
$$;

-- Of a chunk with pieces from p_from to p_to, led in by the piece before them.
CREATE FUNCTION chunk_text(p_tenant text, p_user text, p_conversation text, p_chunk bigint, p_from bigint, p_to bigint)
RETURNS text LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    WITH own AS (
        SELECT i.*::memory_items AS piece, i.seq, i.part, i.previous_id FROM memory_items AS i
        WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND kind = 'piece'
            AND seq BETWEEN p_from AND p_to AND chunk_id = p_chunk),
    led AS (
        SELECT piece, seq, part FROM own
        UNION ALL
        SELECT i.*::memory_items, i.seq, i.part FROM memory_items AS i
        WHERE tenant_id = p_tenant AND user_id = p_user
            AND item_id = (SELECT previous_id FROM own ORDER BY seq, part LIMIT 1))
    SELECT string_agg(piece_text(piece), E'\n' ORDER BY seq, part) FROM led
$$;

CREATE FUNCTION item_text(p_item memory_items) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT CASE p_item.kind
        WHEN 'piece' THEN piece_text(p_item)
        ELSE chunk_text(p_item.tenant_id, p_item.user_id, p_item.conversation_id, p_item.item_id, p_item.seq, p_item.seq_to)
    END
$$;

-- --- writing: by switchboard_ops ----------------------------------------------------------------------------------------

-- What up to p_turns of the longest waiting turns have said, by conversation, for chunking; NULL when nothing is due.
-- The conversations are the caller's until its transaction ends. Messages of nobody in particular are not for memory:
-- their turns come without them.
CREATE FUNCTION take_memory_outbox(p_turns integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_keys text[];
BEGIN
    -- Locks first, then a look at what holds under them: another writer may have committed in between.
    SELECT array_agg(key) INTO v_keys FROM (
        SELECT tenant_id || E'\x1f' || conversation_id AS key FROM (
            SELECT tenant_id, conversation_id FROM memory_outbox AS o
            WHERE due_at <= now() AND NOT EXISTS (
                SELECT FROM memory_outbox AS older
                WHERE older.tenant_id = o.tenant_id AND older.conversation_id = o.conversation_id AND older.id < o.id
                    AND older.due_at > now())
            ORDER BY id LIMIT p_turns) AS waiting
        GROUP BY 1) AS found
    WHERE pg_try_advisory_xact_lock(hashtextextended(key, 20));
    IF v_keys IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (
        WITH waiting AS (
            SELECT tenant_id, conversation_id, max(user_id) AS user_id, array_agg(id) AS outbox FROM (
                SELECT tenant_id, conversation_id, user_id, id,
                    bool_and(due_at <= now()) OVER (PARTITION BY tenant_id, conversation_id ORDER BY id) AS ready
                FROM memory_outbox WHERE (tenant_id, conversation_id) IN (
                    SELECT split_part(key, E'\x1f', 1), split_part(key, E'\x1f', 2) FROM unnest(v_keys) AS key)
                ORDER BY id LIMIT p_turns) AS oldest
            WHERE ready GROUP BY 1, 2)
        SELECT jsonb_build_object('block', nextval('memory_blocks'), 'conversations', coalesce(jsonb_agg(jsonb_build_object(
            'tenant', w.tenant_id, 'user', w.user_id, 'id', w.conversation_id, 'outbox', w.outbox,
            'said', coalesce(said.messages, '[]'), 'last', last.piece)), '[]'))
        FROM waiting AS w
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object(
                'message', m.message_id, 'seq', m.seq, 'role', m.role, 'body', m.body, 'said_us', to_unix_us(m.created_at),
                'speaker', CASE m.role
                    WHEN 'user' THEN coalesce(nullif(left(u.profile#>>'{name,value}', 80), ''), 'User') ELSE m.agent END)
                ORDER BY m.seq) AS messages
            FROM memory_outbox AS o JOIN messages AS m ON m.message_id = ANY (o.message_ids)
            LEFT JOIN users AS u ON u.tenant_id = w.tenant_id AND u.user_id = w.user_id
            WHERE o.id = ANY (w.outbox) AND o.user_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM memory_items AS i WHERE i.tenant_id = w.tenant_id
                    AND i.conversation_id = w.conversation_id AND i.seq = m.seq AND i.kind = 'piece')) AS said
        LEFT JOIN LATERAL (
            SELECT jsonb_build_object(
                'id', p.item_id, 'said_us', to_unix_us(p.said_at), 'chunk', jsonb_build_object(
                    'id', c.item_id, 'seq', c.seq, 'part', c.part, 'tokens', c.tokens, 'previous', c.previous_id,
                    'said_us', to_unix_us(c.said_at))) AS piece
            FROM memory_items AS p JOIN memory_items AS c
                ON c.tenant_id = p.tenant_id AND c.user_id = p.user_id AND c.item_id = p.chunk_id
            WHERE p.tenant_id = w.tenant_id AND p.conversation_id = w.conversation_id AND p.kind = 'piece'
            ORDER BY p.seq DESC, p.part DESC LIMIT 1) AS last ON true);
END
$$;

-- Writes what a batch of turns came to and takes the turns out of the outbox. Repeating it changes nothing. p_pieces and
-- p_chunks as workers/memory/chunking.py makes them; a chunk that is there already has grown.
CREATE FUNCTION write_memory(p_pieces jsonb, p_chunks jsonb, p_outbox bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(memory_models_lock());
    INSERT INTO memory_items (tenant_id, user_id, item_id, kind, conversation_id, seq, seq_to, part, chunk_id, previous_id,
        role, speaker, asks, char_from, chars, tokens, words, terms, said_at)
    SELECT p.tenant, p."user", p.id, 'piece', p.conversation, p.seq, p.seq, p.part, p.chunk, p.previous, p.role, p.speaker,
        p.asks, p.char_from, p.chars, p.tokens, cardinality(found.words), memory_terms(found.words), from_unix_us(p.said_us)
    FROM jsonb_to_recordset(p_pieces) AS p(
        tenant text, "user" text, id bigint, conversation text, message uuid, seq bigint, part smallint, chunk bigint,
        previous bigint, role text, speaker text, asks boolean, char_from integer, chars integer, tokens integer, said_us bigint)
    JOIN messages AS m ON m.tenant_id = p.tenant AND m.conversation_id = p.conversation AND m.seq = p.seq
        AND m.message_id = p.message
    CROSS JOIN LATERAL memory_words(p.speaker || ': ' || substr(m.body, p.char_from, p.chars)) AS found(words)
    ON CONFLICT (tenant_id, conversation_id, seq, part, kind) DO NOTHING;
    INSERT INTO memory_items (tenant_id, user_id, item_id, kind, conversation_id, seq, seq_to, part, previous_id, tokens,
        words, terms, said_at)
    SELECT c.tenant, c."user", c.id, 'chunk', c.conversation, c.seq, c.seq_to, c.part, c.previous, c.tokens,
        cardinality(found.words), memory_terms(found.words), from_unix_us(c.said_us)
    FROM jsonb_to_recordset(p_chunks) AS c(
        tenant text, "user" text, id bigint, conversation text, seq bigint, seq_to bigint, part smallint, previous bigint,
        tokens integer, said_us bigint)
    CROSS JOIN LATERAL memory_words(chunk_text(c.tenant, c."user", c.conversation, c.id, c.seq, c.seq_to)) AS found(words)
    ON CONFLICT (tenant_id, user_id, item_id) DO UPDATE SET
        seq_to = excluded.seq_to, tokens = excluded.tokens, words = excluded.words, terms = excluded.terms,
        version = memory_items.version + 1;
    INSERT INTO memory_pending AS waiting (model_id, item_id, tenant_id, user_id, due_at)
    SELECT m.model_id, i.id, i.tenant, i."user", now() + i.wait_s * interval '1 second'
    FROM jsonb_to_recordset(p_pieces || p_chunks) AS i(tenant text, "user" text, id bigint, wait_s integer)
    CROSS JOIN embedding_models AS m
    WHERE m.state IN ('building', 'active') AND EXISTS (
        SELECT FROM memory_items WHERE tenant_id = i.tenant AND user_id = i."user" AND item_id = i.id)
    ON CONFLICT (model_id, item_id) DO UPDATE SET due_at = greatest(waiting.due_at, excluded.due_at);
    DELETE FROM memory_outbox WHERE id = ANY (p_outbox);
END
$$;

-- What could not be written is tried again, ever later.
CREATE FUNCTION postpone_memory_outbox(p_outbox bigint[], p_error text) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE memory_outbox SET
        attempts = attempts + 1, last_error = p_error,
        due_at = now() + least(3600, 2 ^ least(attempts + 1, 12)) * interval '1 second'
    WHERE id = ANY (p_outbox)
$$;

-- --- embedding: by switchboard_ops --------------------------------------------------------------------------------------

-- Up to p_limit texts that need a vector of p_model, the most overdue first; ours for p_lease_s, then anybody's again.
CREATE FUNCTION claim_memory_texts(p_model smallint, p_limit integer, p_lease_s integer)
RETURNS TABLE (item_id bigint, tenant_id text, user_id text, conversation_id text, job_id uuid, version integer,
    text text, attempts integer)
LANGUAGE sql SET search_path = public, pg_temp AS $$
    WITH due AS (
        SELECT p.item_id FROM memory_pending AS p WHERE p.model_id = p_model AND p.due_at <= now()
        ORDER BY p.due_at LIMIT p_limit FOR UPDATE SKIP LOCKED),
    claimed AS (
        UPDATE memory_pending AS p SET due_at = now() + p_lease_s * interval '1 second'
        FROM due WHERE p.model_id = p_model AND p.item_id = due.item_id
        RETURNING p.tenant_id, p.user_id, p.item_id, p.attempts)
    SELECT i.item_id, i.tenant_id, i.user_id, i.conversation_id, m.job_id, i.version, item_text(i), c.attempts
    FROM claimed AS c JOIN memory_items AS i
        ON i.tenant_id = c.tenant_id AND i.user_id = c.user_id AND i.item_id = c.item_id
    JOIN messages AS m ON m.tenant_id = i.tenant_id AND m.conversation_id = i.conversation_id AND m.seq = i.seq
$$;

-- Vectors of p_model, as text, for items in the versions that were claimed; how many were taken. An item that is gone is
-- skipped; one that has grown meanwhile waits for its next vector. SB010, and nothing is written, when one is not of the
-- model's dimensions.
CREATE FUNCTION write_memory_embeddings(p_model smallint, p_items bigint[], p_versions integer[], p_embeddings text[])
RETURNS integer LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_dimensions integer;
    v_written integer;
BEGIN
    SELECT dimensions INTO STRICT v_dimensions FROM embedding_models
    WHERE model_id = p_model AND state IN ('building', 'active') FOR KEY SHARE;
    IF EXISTS (SELECT FROM unnest(p_embeddings) AS e WHERE vector_dims(e::halfvec) <> v_dimensions) THEN
        RAISE EXCEPTION 'a vector has not % dimensions', v_dimensions USING ERRCODE = 'SB010';
    END IF;
    WITH given AS (
        SELECT * FROM unnest(p_items, p_versions, p_embeddings) AS g(item_id, version, embedding)),
    kept AS (  -- locked, so that none of them is deleted before its vector refers to it
        SELECT i.tenant_id, i.user_id, i.item_id, i.version = g.version AS current, g.embedding
        FROM given AS g JOIN memory_pending AS p ON p.model_id = p_model AND p.item_id = g.item_id
        JOIN memory_items AS i ON i.tenant_id = p.tenant_id AND i.user_id = p.user_id AND i.item_id = p.item_id
        FOR KEY SHARE OF i),
    written AS (
        INSERT INTO memory_embeddings (tenant_id, user_id, model_id, item_id, embedding)
        SELECT tenant_id, user_id, p_model, item_id, l2_normalize(embedding::halfvec) FROM kept
        ON CONFLICT (tenant_id, user_id, model_id, item_id) DO UPDATE SET embedding = excluded.embedding
        RETURNING 1),
    done AS (
        DELETE FROM memory_pending AS p USING kept AS k
        WHERE p.model_id = p_model AND p.item_id = k.item_id AND k.current)
    SELECT count(*) INTO v_written FROM written;
    UPDATE memory_pending SET due_at = now() WHERE model_id = p_model AND item_id = ANY (p_items);
    RETURN v_written;
END
$$;

CREATE FUNCTION postpone_memory_texts(p_model smallint, p_items bigint[], p_delay_s integer, p_error text) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE memory_pending SET
        attempts = attempts + 1, last_error = p_error, due_at = now() + p_delay_s * interval '1 second'
    WHERE model_id = p_model AND item_id = ANY (p_items)
$$;

-- Looks at the next p_limit items and notes those that lack a vector of p_model; how many it looked at: 0 is the end.
-- Where it has come to is kept, so that a killed run goes on.
CREATE FUNCTION fill_memory_pending(p_model smallint, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_from embedding_models;
    v_last record;
BEGIN
    SELECT * INTO STRICT v_from FROM embedding_models
    WHERE model_id = p_model AND state IN ('building', 'active') FOR NO KEY UPDATE;
    WITH next AS (
        SELECT tenant_id, user_id, item_id FROM memory_items
        WHERE (tenant_id, user_id, item_id) > (v_from.filled_tenant, v_from.filled_user, v_from.filled_item)
        ORDER BY tenant_id, user_id, item_id LIMIT p_limit),
    noted AS (
        INSERT INTO memory_pending (model_id, item_id, tenant_id, user_id)
        SELECT p_model, n.item_id, n.tenant_id, n.user_id FROM next AS n
        WHERE NOT EXISTS (
            SELECT FROM memory_embeddings AS e WHERE e.tenant_id = n.tenant_id AND e.user_id = n.user_id
                AND e.model_id = p_model AND e.item_id = n.item_id)
        ON CONFLICT (model_id, item_id) DO NOTHING)
    SELECT count(*) OVER () AS looked_at, n.* INTO v_last
    FROM next AS n ORDER BY tenant_id DESC, user_id DESC, item_id DESC LIMIT 1;
    IF v_last.looked_at IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE embedding_models SET
        filled_tenant = v_last.tenant_id, filled_user = v_last.user_id, filled_item = v_last.item_id
    WHERE model_id = p_model;
    RETURN v_last.looked_at;
END
$$;
