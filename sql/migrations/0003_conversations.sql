-- What was said and how each job ended. Every unique key leads with the tenant, so that no tenant can collide with,
-- or learn of, another one's rows.

CREATE TABLE conversations (
    tenant_id text NOT NULL,
    conversation_id text NOT NULL,
    user_id text,  -- the first named user owns the conversation; NULL until there is one
    next_seq bigint NOT NULL DEFAULT 1 CHECK (next_seq >= 1),
    next_delivery bigint NOT NULL DEFAULT 1 CHECK (next_delivery >= 1),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id)
) WITH (fillfactor = 80);  -- updated by every turn, in no indexed column: room for heap-only updates
CREATE INDEX conversations_user ON conversations (tenant_id, user_id) WHERE user_id IS NOT NULL;
SELECT protect_table('conversations');
REVOKE DELETE ON conversations FROM switchboard_app;

CREATE TABLE messages (
    tenant_id text NOT NULL,
    conversation_id text NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 1),  -- the order of the conversation; recent messages are read by it
    message_id uuid NOT NULL UNIQUE,
    job_id uuid NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'assistant')),
    agent text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, seq),
    UNIQUE (tenant_id, job_id, role),  -- a job says each thing once, however often it runs
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE
);
SELECT protect_table('messages');
REVOKE UPDATE, DELETE ON messages FROM switchboard_app;

-- One terminal row for each run of a job; retrying a dead job starts run + 1.
CREATE TABLE jobs (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    run integer NOT NULL CHECK (run >= 1),
    state text NOT NULL CHECK (state IN ('succeeded', 'dead', 'expired', 'cancelled', 'rejected', 'merged')),
    agent text NOT NULL,
    queue text NOT NULL,
    conversation_id text NOT NULL,
    user_id text,
    domain text,
    feature text,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    attempts integer NOT NULL CHECK (attempts >= 0),
    reply text,
    incomplete text,
    error jsonb CHECK (error ? 'code' AND error ? 'message'),
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, job_id, run),
    CONSTRAINT succeeded_has_reply CHECK (state <> 'succeeded' OR (reply IS NOT NULL AND started_at IS NOT NULL)),
    CONSTRAINT succeeded_has_no_error CHECK (state <> 'succeeded' OR error IS NULL),
    CONSTRAINT dead_has_error CHECK (state <> 'dead' OR error IS NOT NULL)
);
CREATE INDEX jobs_finished ON jobs (tenant_id, finished_at);
SELECT protect_table('jobs');
REVOKE UPDATE, DELETE ON jobs FROM switchboard_app;

-- The dead-letter store: ends somebody may want to look at and retry, with all that is needed to do so.
CREATE TABLE dead_jobs (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    run integer NOT NULL,
    state text NOT NULL CHECK (state IN ('dead', 'expired', 'rejected')),
    agent text NOT NULL,
    queue text NOT NULL,
    conversation_id text NOT NULL,
    user_id text,
    payload jsonb,  -- as it was admitted; NULL when it could not even be read
    attempts integer NOT NULL,
    attempt_errors jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(attempt_errors) = 'array'),
    error jsonb,
    traceback text,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, job_id, run),
    FOREIGN KEY (tenant_id, job_id, run) REFERENCES jobs ON DELETE CASCADE
);
CREATE INDEX dead_jobs_finished ON dead_jobs (finished_at);
SELECT protect_table('dead_jobs');
REVOKE UPDATE, DELETE ON dead_jobs FROM switchboard_app;

-- Turns whose messages memory has still to take in.
CREATE TABLE memory_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL,
    user_id text,
    conversation_id text NOT NULL,
    job_id uuid NOT NULL,
    message_ids uuid[] NOT NULL CHECK (cardinality(message_ids) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE
);
CREATE INDEX memory_outbox_conversation ON memory_outbox (tenant_id, conversation_id);
SELECT protect_table('memory_outbox');

-- Events owed to a caller's callback URL.
CREATE TABLE deliveries (
    delivery_id uuid PRIMARY KEY DEFAULT uuid7(),
    tenant_id text NOT NULL,
    conversation_id text NOT NULL,
    job_id uuid NOT NULL,
    run integer NOT NULL,
    url text NOT NULL,
    event_type text NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 1),  -- place in its conversation's events
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'sending', 'unknown', 'parked', 'delivered', 'failed', 'discarded')),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    body jsonb NOT NULL,  -- the job's record
    UNIQUE (tenant_id, job_id, run, event_type),
    CONSTRAINT ended_has_finished_at CHECK ((state IN ('delivered', 'failed', 'discarded')) = (finished_at IS NOT NULL))
);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state = 'pending';
CREATE INDEX deliveries_lane ON deliveries (tenant_id, conversation_id, sequence);
SELECT protect_table('deliveries');
REVOKE DELETE ON deliveries FROM switchboard_app;
