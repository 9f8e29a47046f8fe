-- What users said before, found again: by words at once, by meaning as soon as it is embedded.
--
-- No text is copied. An item points into `messages`, its words stand beside it as hashed terms, its meaning as one vector
-- for each embedding model; what is deleted there is gone here (CASCADE). A user's items are few enough to be looked at
-- one by one, so there is no approximate index, which would lose rows behind the filter on the user (decisions/0028),
-- and vectors of any dimension share one table.

-- Deployment-wide. A model is `building` until every item has its vector, then it may become the `active` one, which
-- recall uses; a `retiring` one gets no vectors any more while those it has are deleted.
CREATE TABLE embedding_models (
    model_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,  -- 'provider/model', or as the embedders call it
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),
    floor real NOT NULL DEFAULT 0 CHECK (floor BETWEEN -1 AND 1),  -- cosine below which nothing is alike
    state text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'active', 'retiring', 'retired')),
    filled_to bigint NOT NULL DEFAULT 0,  -- items up to this id have been put into `memory_pending` for it
    created_at timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    retired_at timestamptz
);
CREATE UNIQUE INDEX embedding_models_active ON embedding_models (state) WHERE state = 'active';
REVOKE INSERT, UPDATE, DELETE ON embedding_models FROM switchboard_app;

-- A piece of a message (the whole of it, or one of the parts of a long one), or a chunk: neighbouring pieces of one
-- conversation, of about 150 tokens together, with the piece before them as lead-in.
CREATE TABLE memory_items (
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    item_id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL CHECK (kind IN ('piece', 'chunk')),
    conversation_id text NOT NULL,
    seq bigint NOT NULL,  -- of its message; a chunk's first
    part smallint NOT NULL DEFAULT 0 CHECK (part >= 0),  -- of a message in several parts
    chunk_id bigint,  -- a piece's chunk
    role text CHECK (role IN ('user', 'assistant')),
    speaker text NOT NULL DEFAULT '',  -- how whoever said it is called in texts
    char_from integer NOT NULL DEFAULT 1 CHECK (char_from >= 1),  -- the piece within its message's body, in characters
    chars integer NOT NULL DEFAULT 0 CHECK (chars >= 0),
    tokens integer NOT NULL CHECK (tokens >= 0),  -- of a chunk without its lead-in
    length integer NOT NULL DEFAULT 0,  -- different words
    terms sparsevec(1000000000) NOT NULL,  -- 1 for each of its words, at the word's hash
    version integer NOT NULL DEFAULT 1,  -- of a chunk's text, which grows
    said_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, user_id, item_id),
    CONSTRAINT memory_items_once UNIQUE (tenant_id, conversation_id, seq, part, kind),
    FOREIGN KEY (tenant_id, conversation_id, seq) REFERENCES messages ON DELETE CASCADE
);
SELECT protect_table('memory_items');
REVOKE INSERT, UPDATE, DELETE ON memory_items FROM switchboard_app;

-- halfvec without a dimension: of whatever model. Vectors stay in their row (TOAST would make a scan 2.4 times as long).
CREATE TABLE memory_embeddings (
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    model_id smallint NOT NULL REFERENCES embedding_models,
    item_id bigint NOT NULL,
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
