-- What an agent is shown beyond the recent messages: the running summary of a conversation, the user's profile and facts;
-- and the tasks that make them, which nobody waits for.
--
-- A task is one row for each conversation and kind, due when there is something to do. It becomes due in the transaction
-- that takes messages into memory, so that no crash can lose it, and off the reply's way. A worker's claim fences it:
-- whoever claimed it last writes, everybody else's result is dropped and only paid for.

CREATE TABLE conversation_summaries (
    tenant_id text NOT NULL,
    conversation_id text NOT NULL,
    user_id text,
    upto_seq bigint NOT NULL CHECK (upto_seq >= 1),  -- the last message that is in it
    body text NOT NULL CHECK (body <> ''),
    prompt_version integer NOT NULL,
    model text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversation_id),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE
);
CREATE INDEX conversation_summaries_user ON conversation_summaries (tenant_id, user_id);
SELECT protect_table('conversation_summaries');

-- What a user told. Of one topic one fact holds at a time; a later one closes it, and nothing is overwritten.
CREATE TABLE user_facts (
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    fact_id uuid NOT NULL DEFAULT uuid7(),
    topic text NOT NULL CHECK (topic ~ '^[a-z0-9_]{1,64}$'),
    body text NOT NULL CHECK (body <> '' AND length(body) <= 1000),
    conversation_id text,  -- where it was said; NULL: a person wrote it
    sources uuid[] NOT NULL DEFAULT '{}',  -- the messages that say so
    told_by text NOT NULL,  -- 'user', or who wrote it here
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,  -- NULL: it holds
    superseded_by uuid,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, fact_id),
    CONSTRAINT holds_for_a_time CHECK (valid_to >= valid_from),
    CONSTRAINT superseded_has_ended CHECK (superseded_by IS NULL OR valid_to IS NOT NULL)
);
CREATE UNIQUE INDEX user_facts_holding ON user_facts (tenant_id, user_id, topic) WHERE valid_to IS NULL;
SELECT protect_table('user_facts');

CREATE TABLE memory_tasks (
    tenant_id text NOT NULL,
    conversation_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('summary', 'facts')),
    user_id text,
    task_id uuid NOT NULL DEFAULT uuid7(),  -- what its model calls are booked under
    done_seq bigint NOT NULL DEFAULT 0 CHECK (done_seq >= 0),  -- messages up to here need no more work
    due_at timestamptz,  -- NULL: nothing to do
    claim bigint NOT NULL DEFAULT 0,  -- of who claimed it last, Unix µs
    lease_until timestamptz,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    error jsonb,
    PRIMARY KEY (tenant_id, conversation_id, kind),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE
);
CREATE INDEX memory_tasks_due ON memory_tasks (due_at) WHERE due_at IS NOT NULL;
SELECT protect_table('memory_tasks');

-- The turn that greeted this user first; NULL: nobody greeted, or it was before there were greetings.
ALTER TABLE users ADD COLUMN greeted_by uuid;

-- When a task is due, by how many messages wait for it; NULL: not yet. The tenant's settings (`memory`) decide:
-- `summary_after` 20, `facts_after` 10 or `quiet_s` 60 after the last message, `facts` false: never.
CREATE FUNCTION memory_task_due(p_kind text, p_settings jsonb, p_waiting bigint, p_last timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT CASE
        WHEN p_waiting <= 0 THEN NULL
        WHEN p_kind = 'summary' THEN
            CASE WHEN p_waiting > coalesce((s->>'summary_after')::bigint, 20) THEN p_last END
        WHEN s->>'facts' = 'false' THEN NULL
        WHEN p_waiting >= coalesce((s->>'facts_after')::bigint, 10) THEN p_last
        ELSE p_last + coalesce((s->>'quiet_s')::double precision, 60) * interval '1 second' END
    FROM (SELECT coalesce(p_settings->'memory', '{}') AS s) AS settings
$$;

-- Messages were taken into memory: their conversations' tasks are due, each at its time. No tenant need be set: it runs
-- as whoever drains the outbox, and looks only at conversations that are still there.
CREATE FUNCTION memory_was_taken_in() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO memory_tasks AS t (tenant_id, conversation_id, kind, user_id, due_at)
    SELECT c.tenant_id, c.conversation_id, k.kind, c.user_id,
        memory_task_due(k.kind, s.settings, c.next_seq - 1 - coalesce(known.done_seq, 0), now())
    FROM (SELECT DISTINCT tenant_id, conversation_id FROM gone) AS g
        JOIN conversations AS c USING (tenant_id, conversation_id)
        CROSS JOIN (VALUES ('facts'), ('summary')) AS k(kind)
        LEFT JOIN tenants AS s ON s.tenant_id = c.tenant_id
        LEFT JOIN memory_tasks AS known
            ON known.tenant_id = c.tenant_id AND known.conversation_id = c.conversation_id AND known.kind = k.kind
    WHERE k.kind = 'summary' OR c.user_id IS NOT NULL
    ORDER BY 1, 2, 3
    ON CONFLICT (tenant_id, conversation_id, kind) DO UPDATE SET
        user_id = excluded.user_id,
        due_at = CASE WHEN t.attempts > 0 AND t.due_at IS NOT NULL THEN t.due_at ELSE excluded.due_at END;
    RETURN NULL;
END
$$;
CREATE TRIGGER memory_was_taken_in AFTER DELETE ON memory_outbox REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION memory_was_taken_in();

-- --- tasks: the worker's side ---------------------------------------------------------------------------------------------

-- Up to p_limit due tasks, of all tenants for switchboard_ops, for p_lease_s. A crash gives them back when that is over.
CREATE FUNCTION claim_memory_tasks(p_limit integer, p_lease_s double precision) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY
        WITH chosen AS (
            SELECT tenant_id, conversation_id, kind FROM memory_tasks
            WHERE due_at <= now() AND (lease_until IS NULL OR lease_until <= now())
            ORDER BY due_at LIMIT p_limit FOR UPDATE SKIP LOCKED),
        claimed AS (
            UPDATE memory_tasks AS t SET
                claim = greatest(to_unix_us(clock_timestamp()), t.claim + 1), attempts = t.attempts + 1,
                lease_until = now() + p_lease_s * interval '1 second'
            FROM chosen AS c
            WHERE (t.tenant_id, t.conversation_id, t.kind) = (c.tenant_id, c.conversation_id, c.kind)
            RETURNING t.*)
        SELECT jsonb_build_object(
            'tenant', tenant_id, 'conversation_id', conversation_id, 'kind', kind, 'user_id', user_id,
            'task_id', task_id, 'claim', claim, 'attempt', attempts)
        FROM claimed;
END
$$;

-- What a claimed task works on: messages from done_seq on, p_limit at most, the oldest first, and what is known already.
-- A summary leaves the newest p_keep to be read as they are. NULL: somebody else has claimed it, or it is gone.
CREATE FUNCTION memory_task_work(
    p_tenant text, p_conversation text, p_kind text, p_claim bigint, p_keep integer, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_task memory_tasks;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_task FROM memory_tasks
    WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND kind = p_kind AND claim = p_claim;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT jsonb_build_object(
            'tenant_known', t.tenant_id IS NOT NULL AND t.disabled_at IS NULL, 'settings', coalesce(t.settings, '{}')::text,
            'done_seq', v_task.done_seq,
            'agent', (SELECT agent FROM messages AS m WHERE m.tenant_id = p_tenant AND m.conversation_id = p_conversation
                ORDER BY seq DESC LIMIT 1),
            'summary', (SELECT body FROM conversation_summaries AS s
                WHERE s.tenant_id = p_tenant AND s.conversation_id = p_conversation),
            'profile', coalesce((SELECT profile FROM users AS u
                WHERE u.tenant_id = p_tenant AND u.user_id = v_task.user_id), '{}'),
            'facts', coalesce((SELECT jsonb_agg(jsonb_build_object('topic', f.topic, 'text', f.body) ORDER BY f.topic)
                FROM user_facts AS f
                WHERE f.tenant_id = p_tenant AND f.user_id = v_task.user_id AND f.valid_to IS NULL), '[]'),
            'messages', coalesce((SELECT jsonb_agg(jsonb_build_object('id', message_id, 'seq', seq, 'role', role,
                    'text', body, 'at_us', to_unix_us(created_at)) ORDER BY seq)
                FROM (SELECT * FROM messages AS m
                    WHERE m.tenant_id = p_tenant AND m.conversation_id = p_conversation AND m.seq > v_task.done_seq
                        AND m.seq < c.next_seq - (CASE WHEN p_kind = 'summary' THEN p_keep ELSE 0 END)
                    ORDER BY seq LIMIT p_limit) AS waiting), '[]'))
        FROM conversations AS c LEFT JOIN tenants AS t ON t.tenant_id = c.tenant_id
        WHERE c.tenant_id = p_tenant AND c.conversation_id = p_conversation);
END
$$;

-- The row of a claimed task, locked; NULL for whoever is not its last claimer.
CREATE FUNCTION held_memory_task(p_tenant text, p_conversation text, p_kind text, p_claim bigint) RETURNS memory_tasks
LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT * FROM memory_tasks
    WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND kind = p_kind AND claim = p_claim FOR UPDATE
$$;

-- Writes a summary up to p_upto in place of the one up to p_from. False: another one was written meanwhile, or the task is
-- not ours any more.
CREATE FUNCTION commit_summary(
    p_tenant text, p_conversation text, p_claim bigint, p_from bigint, p_upto bigint, p_body text, p_version integer,
    p_model text) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_task memory_tasks;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_task := held_memory_task(p_tenant, p_conversation, 'summary', p_claim);
    IF v_task.task_id IS NULL OR v_task.done_seq <> p_from THEN
        RETURN false;
    END IF;
    INSERT INTO conversation_summaries AS s (
        tenant_id, conversation_id, user_id, upto_seq, body, prompt_version, model)
    VALUES (p_tenant, p_conversation, v_task.user_id, p_upto, p_body, p_version, p_model)
    ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET
        user_id = excluded.user_id, upto_seq = excluded.upto_seq, body = excluded.body,
        prompt_version = excluded.prompt_version, model = excluded.model, made_at = now()
    WHERE s.upto_seq = p_from;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE memory_tasks SET done_seq = p_upto
    WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND kind = 'summary';
    RETURN true;
END
$$;

-- Writes what was learnt from messages up to p_upto: {profile: {name: {value, sources}}, facts: [{topic, text, sources,
-- at_us}]}. A person's own profile entries stay as they are. False as in commit_summary.
CREATE FUNCTION commit_facts(
    p_tenant text, p_conversation text, p_claim bigint, p_from bigint, p_upto bigint, p_found jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_task memory_tasks;
    v_fact record;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_task := held_memory_task(p_tenant, p_conversation, 'facts', p_claim);
    IF v_task.task_id IS NULL OR v_task.done_seq <> p_from OR v_task.user_id IS NULL THEN
        RETURN false;
    END IF;
    PERFORM note_profile(p_tenant, v_task.user_id, p_found->'profile', 'user');
    FOR v_fact IN SELECT * FROM jsonb_to_recordset(p_found->'facts') AS given(
        topic text, text text, sources uuid[], at_us bigint) ORDER BY at_us
    LOOP
        PERFORM note_fact(p_tenant, v_task.user_id, v_fact.topic, v_fact.text, p_conversation, v_fact.sources, 'user',
            from_unix_us(v_fact.at_us));
    END LOOP;
    UPDATE memory_tasks SET done_seq = p_upto
    WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND kind = 'facts';
    RETURN true;
END
$$;

-- A claimed task is over for now: due again when more messages wait, after p_retry_s when it failed (p_error), or never
-- (NULL with an error: given up until the next message; what it failed on is left out when p_skip says so).
CREATE FUNCTION end_memory_task(
    p_tenant text, p_conversation text, p_kind text, p_claim bigint, p_error jsonb, p_retry_s double precision,
    p_skip bigint) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE memory_tasks AS t SET
        lease_until = NULL, error = p_error, done_seq = greatest(t.done_seq, p_skip),
        attempts = CASE WHEN p_retry_s IS NULL THEN 0 ELSE t.attempts END,
        due_at = CASE WHEN p_retry_s IS NOT NULL THEN now() + p_retry_s * interval '1 second'
            WHEN p_error IS NULL THEN memory_task_due(t.kind, s.settings,
                c.next_seq - 1 - greatest(t.done_seq, p_skip), c.updated_at) END
    FROM conversations AS c LEFT JOIN tenants AS s ON s.tenant_id = c.tenant_id
    WHERE t.tenant_id = p_tenant AND t.conversation_id = p_conversation AND t.kind = p_kind AND t.claim = p_claim
        AND c.tenant_id = t.tenant_id AND c.conversation_id = t.conversation_id;
END
$$;

-- How many tasks are due, and for how long the oldest has been, by kind.
CREATE FUNCTION memory_task_load() RETURNS TABLE (kind text, due bigint, failing bigint, oldest_s double precision)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT k.kind, count(t.due_at), count(t.due_at) FILTER (WHERE t.attempts > 1),
        coalesce(extract(epoch FROM now() - min(t.due_at)), 0)::double precision
    FROM (VALUES ('facts'), ('summary')) AS k(kind)
        LEFT JOIN memory_tasks AS t ON t.kind = k.kind AND t.due_at <= now()
    GROUP BY k.kind ORDER BY k.kind
$$;

-- --- profile and facts ----------------------------------------------------------------------------------------------------

-- Lays {name: {value, sources}} over a user's profile; what a person wrote there is not replaced by what was learnt.
CREATE FUNCTION note_profile(p_tenant text, p_user text, p_entries jsonb, p_by text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO users (tenant_id, user_id) VALUES (p_tenant, p_user) ON CONFLICT (tenant_id, user_id) DO NOTHING;
    UPDATE users AS u SET profile = u.profile || (
        SELECT coalesce(jsonb_object_agg(e.key, e.value || jsonb_build_object('by', p_by, 'at_us', to_unix_us(now()))), '{}')
        FROM jsonb_each(p_entries) AS e
        WHERE p_by <> 'user' OR coalesce(u.profile#>>ARRAY[e.key, 'by'], 'user') = 'user')
    WHERE u.tenant_id = p_tenant AND u.user_id = p_user;
END
$$;

-- A fact of one topic, from p_at on: the one that holds is closed by it; one that is older than what holds is history
-- already, and the same again is nothing new. Its id, or NULL where it was nothing new.
CREATE FUNCTION note_fact(
    p_tenant text, p_user text, p_topic text, p_body text, p_conversation text, p_sources uuid[], p_by text,
    p_at timestamptz) RETURNS uuid
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_id constant uuid := uuid7();
    v_holding user_facts;
BEGIN
    INSERT INTO users (tenant_id, user_id) VALUES (p_tenant, p_user) ON CONFLICT (tenant_id, user_id) DO NOTHING;
    PERFORM FROM users WHERE tenant_id = p_tenant AND user_id = p_user FOR UPDATE;  -- one at a time for a user
    SELECT * INTO v_holding FROM user_facts
    WHERE tenant_id = p_tenant AND user_id = p_user AND topic = p_topic AND valid_to IS NULL;
    IF lower(v_holding.body) = lower(p_body) THEN
        RETURN NULL;
    END IF;
    IF v_holding.valid_from > p_at THEN
        INSERT INTO user_facts (tenant_id, user_id, fact_id, topic, body, conversation_id, sources, told_by, valid_from,
            valid_to, superseded_by)
        VALUES (p_tenant, p_user, v_id, p_topic, p_body, p_conversation, p_sources, p_by, p_at, v_holding.valid_from,
            v_holding.fact_id);
        RETURN v_id;
    END IF;
    UPDATE user_facts SET valid_to = p_at, superseded_by = v_id
    WHERE tenant_id = p_tenant AND user_id = p_user AND fact_id = v_holding.fact_id;
    INSERT INTO user_facts (tenant_id, user_id, fact_id, topic, body, conversation_id, sources, told_by, valid_from)
    VALUES (p_tenant, p_user, v_id, p_topic, p_body, p_conversation, p_sources, p_by, p_at);
    RETURN v_id;
END
$$;

CREATE FUNCTION fact_resource(f user_facts) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', f.fact_id, 'tenant', f.tenant_id, 'user_id', f.user_id, 'topic', f.topic, 'text', f.body,
        'conversation_id', f.conversation_id, 'sources', f.sources, 'told_by', f.told_by,
        'valid_from_us', to_unix_us(f.valid_from), 'valid_to_us', to_unix_us(f.valid_to),
        'superseded_by', f.superseded_by)
$$;

-- A user's profile; NULL: nobody has heard of this user.
CREATE FUNCTION user_profile(p_tenant text, p_user text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (SELECT profile FROM users WHERE tenant_id = p_tenant AND user_id = p_user);
END
$$;

-- Lays entries over the profile and takes those out that p_gone names; the profile as it is then.
CREATE FUNCTION change_profile(p_tenant text, p_user text, p_entries jsonb, p_gone text[], p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_profile jsonb;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM note_profile(p_tenant, p_user, p_entries, p_by);
    UPDATE users SET profile = profile - p_gone WHERE tenant_id = p_tenant AND user_id = p_user
    RETURNING profile INTO v_profile;
    RETURN v_profile;
END
$$;

-- Facts of a user, the newest first: those that hold, or with p_all those of the past as well.
CREATE FUNCTION list_facts(p_tenant text, p_user text, p_all boolean) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT fact_resource(f) FROM user_facts AS f
        WHERE f.tenant_id = p_tenant AND f.user_id = p_user AND (p_all OR f.valid_to IS NULL)
        ORDER BY f.valid_from DESC, f.fact_id DESC;
END
$$;

-- A fact that a person writes: it holds from now on, whatever was known of its topic.
CREATE FUNCTION put_fact(p_tenant text, p_user text, p_topic text, p_body text, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM note_fact(p_tenant, p_user, p_topic, p_body, NULL, '{}', p_by, clock_timestamp());
    RETURN (SELECT fact_resource(f) FROM user_facts AS f
        WHERE f.tenant_id = p_tenant AND f.user_id = p_user AND f.topic = p_topic AND f.valid_to IS NULL);
END
$$;

-- Erases a topic of a user, its past included, or with NULL all of them. How many facts went.
CREATE FUNCTION erase_facts(p_tenant text, p_user text, p_topic text) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_gone bigint;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    DELETE FROM user_facts
    WHERE tenant_id = p_tenant AND user_id = p_user AND (p_topic IS NULL OR topic = p_topic);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END
$$;

-- --- a turn's side --------------------------------------------------------------------------------------------------------

-- What is remembered for a turn: the conversation's summary, the user's profile and facts, and what was said before that
-- fits what is said now, p_tokens of it at most. The newest p_history messages are shown anyway.
CREATE FUNCTION turn_memory(
    p_tenant text, p_conversation text, p_user text, p_history integer, p_query text, p_model smallint, p_embedding text,
    p_tokens integer, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_from bigint;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT min(seq) INTO v_from FROM (
        SELECT seq FROM messages WHERE tenant_id = p_tenant AND conversation_id = p_conversation
        ORDER BY seq DESC LIMIT greatest(p_history, 0)) AS recent;
    RETURN jsonb_build_object(
        'summary', (SELECT body FROM conversation_summaries
            WHERE tenant_id = p_tenant AND conversation_id = p_conversation),
        'profile', coalesce((SELECT profile FROM users WHERE tenant_id = p_tenant AND user_id = p_user), '{}'),
        'facts', coalesce((
            SELECT jsonb_agg(jsonb_build_object('text', body, 'since_us', to_unix_us(valid_from))
                ORDER BY valid_from DESC, fact_id DESC)
            FROM (SELECT * FROM user_facts
                WHERE tenant_id = p_tenant AND user_id = p_user AND valid_to IS NULL
                ORDER BY valid_from DESC, fact_id DESC LIMIT 50) AS holding), '[]'),
        'recall', CASE WHEN p_user IS NOT NULL AND p_query <> '' THEN recall(
            p_tenant, p_user, p_query, p_model, p_embedding::halfvec, p_tokens, p_limit, p_conversation, v_from) END);
END
$$;

-- Whether this turn greets its user: the first one to ask does, however often it runs, and another one when that one
-- ended without a reply. A user who was answered before there was a greeting is not greeted.
CREATE FUNCTION claim_greeting(p_tenant text, p_user text, p_job uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_greeter uuid;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO users (tenant_id, user_id) VALUES (p_tenant, p_user) ON CONFLICT (tenant_id, user_id) DO NOTHING;
    SELECT greeted_by INTO v_greeter FROM users WHERE tenant_id = p_tenant AND user_id = p_user FOR UPDATE;
    IF v_greeter IS NULL AND EXISTS (
            SELECT FROM conversations AS c JOIN messages AS m USING (tenant_id, conversation_id)
            WHERE c.tenant_id = p_tenant AND c.user_id = p_user AND m.role = 'assistant') THEN
        RETURN false;
    END IF;
    IF v_greeter IS NULL OR (
            EXISTS (SELECT FROM jobs WHERE tenant_id = p_tenant AND job_id = v_greeter)
            AND NOT EXISTS (
                SELECT FROM jobs WHERE tenant_id = p_tenant AND job_id = v_greeter AND state = 'succeeded')) THEN
        UPDATE users SET greeted_by = p_job WHERE tenant_id = p_tenant AND user_id = p_user;
        RETURN true;
    END IF;
    RETURN v_greeter = p_job;
END
$$;
