-- Forgetting: what is held of a user, and how it goes (docs/decisions/0031).
--
-- Whoever is erased leaves a fence: a keyed hash of the user (and of each conversation) with the moment before which
-- nothing of theirs may be written any more. The key is not in the database. What erases is switchboard_ops' to call: the
-- role that serves tenants deletes nothing. It runs with the owner's rights, because the owner alone may change the
-- ledger, and because the tenant that is set binds the owner, while switchboard_ops sees all.

-- What holds anything of a user, and what becomes of it. A test compares it with the tables there are.
--   now      deleted in the transaction that writes the fence: what a turn could read
--   later    deleted in batches
--   cascade  goes with a row of another table, by a foreign key
--   scrub    stays without the user: the ledger
--   apart    has a function of its own, or names users only within a document
--   nothing  holds nothing of a user, whatever its columns are called
CREATE TABLE personal_data (
    table_name text PRIMARY KEY,
    fate text NOT NULL CHECK (fate IN ('now', 'later', 'cascade', 'scrub', 'apart', 'nothing')),
    found_by text[] NOT NULL DEFAULT '{}' CHECK (found_by <@ ARRAY['user_id', 'conversation_id', 'job_id']),
    dated_by text,                            -- when a row was made: later ones are a returning user's
    exported boolean NOT NULL DEFAULT true,   -- shown to the user who asks for everything
    retired boolean NOT NULL DEFAULT false,   -- goes by itself, `retention_days` after `dated_by`
    CONSTRAINT deleted_ones_are_found CHECK (fate NOT IN ('now', 'later') OR found_by <> '{}'),
    CONSTRAINT retired_ones_are_dated CHECK (NOT retired OR dated_by IS NOT NULL)
);
REVOKE INSERT, UPDATE, DELETE ON personal_data FROM switchboard_app, switchboard_ops;
INSERT INTO personal_data (table_name, fate, found_by, dated_by, exported) VALUES
    ('conversations', 'apart', '{user_id,conversation_id}', 'created_at', true),
    ('messages', 'cascade', '{conversation_id,job_id}', 'created_at', true),
    ('users', 'now', '{user_id}', 'created_at', true),
    ('memory_outbox', 'cascade', '{conversation_id}', 'created_at', false),
    ('jobs', 'later', '{user_id,conversation_id,job_id}', 'created_at', true),
    ('dead_jobs', 'cascade', '{user_id,conversation_id,job_id}', 'created_at', true),
    ('deliveries', 'later', '{job_id}', 'created_at', true),
    ('delivery_attempts', 'cascade', '{}', NULL, false),
    ('job_claims', 'later', '{job_id}', NULL, false),
    ('forgotten_responses', 'later', '{job_id}', 'forgotten_at', false),
    ('llm_calls', 'scrub', '{user_id,conversation_id,job_id}', 'started_at', true),
    ('channel_statuses', 'apart', '{}', 'received_at', false),
    ('inbound_kept', 'apart', '{}', 'received_at', false),
    ('alert_events', 'apart', '{}', 'crossed_at', false),
    ('tenants', 'apart', '{}', NULL, false),
    ('tenant_changes', 'apart', '{}', NULL, false),
    ('delivery_parts', 'cascade', '{}', NULL, false),
    ('channel_paces', 'apart', '{}', NULL, false);
UPDATE personal_data SET retired = true WHERE table_name IN ('channel_statuses', 'inbound_kept', 'alert_events');

-- Memory's, where they are there: what hangs on messages, conversations and items goes with them.
INSERT INTO personal_data (table_name, fate, found_by, dated_by, exported)
SELECT * FROM (VALUES
    ('memory_items', 'cascade', ARRAY['user_id'], 'created_at', false),
    ('memory_embeddings', 'cascade', ARRAY['user_id'], NULL, false),
    ('memory_pending', 'cascade', ARRAY['user_id'], NULL, false),
    ('conversation_summaries', 'cascade', ARRAY['conversation_id'], 'made_at', true),
    ('memory_tasks', 'cascade', ARRAY['conversation_id'], NULL, false),
    ('user_facts', 'now', ARRAY['user_id'], 'made_at', true)) AS given(table_name, fate, found_by, dated_by, exported)
WHERE to_regclass(table_name) IS NOT NULL;

CREATE TABLE erasure_fences (
    tenant_id text NOT NULL,
    subject text NOT NULL CHECK (subject ~ '^[0-9a-f]{32}$'),
    erased_before timestamptz NOT NULL,  -- by the clock of Redis, which says when jobs were admitted
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, subject)
);
SELECT protect_table('erasure_fences');
REVOKE INSERT, UPDATE, DELETE ON erasure_fences FROM switchboard_app;

CREATE TABLE erasures (
    tenant_id text NOT NULL,
    request_id uuid NOT NULL DEFAULT uuid7(),
    kind text NOT NULL CHECK (kind IN ('user', 'conversation')),
    subject text NOT NULL CHECK (subject ~ '^[0-9a-f]{32}$'),
    sealed text,  -- who is to be erased, encrypted, for whoever goes on after a crash; gone when it is done
    state text NOT NULL DEFAULT 'begun' CHECK (state IN ('begun', 'fenced', 'done')),
    erased_before timestamptz NOT NULL,
    counts jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(counts) = 'object'),
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL DEFAULT now(),  -- somebody is at it until then
    done_at timestamptz,
    PRIMARY KEY (tenant_id, request_id),
    CONSTRAINT done_says_when_and_forgets_who CHECK ((state = 'done') = (done_at IS NOT NULL) AND (state = 'done') = (sealed IS NULL))
);
CREATE UNIQUE INDEX erasures_open ON erasures (tenant_id, subject) WHERE state <> 'done';
CREATE INDEX erasures_left ON erasures (lease_until) WHERE state <> 'done';
SELECT protect_table('erasures');
REVOKE INSERT, UPDATE, DELETE ON erasures FROM switchboard_app;

INSERT INTO personal_data (table_name, fate, exported) VALUES
    ('erasure_fences', 'nothing', false), ('erasures', 'nothing', false);

-- --- the fence -----------------------------------------------------------------------------------------------------------

-- The latest moment before which something of these subjects was erased; NULL: never. The tenant must be set. The
-- transaction gets its id before it looks: an erasure waits for every id that is older than its fence, so nothing that
-- did not see the fence can still be written when the erasure looks for it.
CREATE FUNCTION fence_of(p_tenant text, p_subjects jsonb) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_current_xact_id();
    RETURN (
        SELECT max(erased_before) FROM erasure_fences
        WHERE tenant_id = p_tenant AND subject = ANY (ARRAY(SELECT jsonb_array_elements_text(p_subjects))));
END
$$;

-- A call as the ledger may have it: the money without the user.
CREATE FUNCTION without_user(p_call jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT p_call || '{"user_id": null, "conversation_id": ""}'
$$;

-- Calls as they may be written. Those of somebody erased since their job was admitted lose the user; each names its
-- `subjects` and `admitted_us`, else it passes as it is.
CREATE FUNCTION scrub_calls(p_tenant text, p_calls jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(
            CASE WHEN given ? 'subjects'
                AND from_unix_us((given->>'admitted_us')::bigint) <= fence_of(p_tenant, given->'subjects')
            THEN without_user(given) ELSE given END), '[]')
        FROM jsonb_array_elements(p_calls) AS given);
END
$$;

-- A turn's end as it may be written: `p_turn` itself; without messages taken in of people who were erased since; or, when
-- that concerns the whole turn, {"erased": the record to announce}: then its calls are booked here, without the user, and
-- nothing else must be written. A turn without `subjects` (an older worker's) passes. The tenant must be set.
CREATE FUNCTION unless_erased(p_tenant text, p_turn jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_before timestamptz;
    v_taken_in jsonb;
BEGIN
    IF NOT p_turn ? 'subjects' THEN
        RETURN p_turn;
    END IF;
    v_before := fence_of(p_tenant, p_turn->'subjects');
    IF v_before IS NULL THEN
        RETURN p_turn;
    END IF;
    IF from_unix_us((p_turn->>'created_us')::bigint) > v_before THEN
        SELECT coalesce(jsonb_agg(job ORDER BY place), '[]') INTO v_taken_in
        FROM jsonb_array_elements(coalesce(nullif(p_turn->'taken_in', 'null'), '[]')) WITH ORDINALITY AS given(job, place)
        WHERE from_unix_us((job->>'created_us')::bigint) > v_before;
        IF jsonb_array_length(v_taken_in) < jsonb_array_length(coalesce(nullif(p_turn->'taken_in', 'null'), '[]')) THEN
            p_turn := (p_turn #- '{payload,before}') || jsonb_build_object('taken_in', v_taken_in);
        END IF;
        RETURN p_turn;
    END IF;
    PERFORM add_llm_calls(
        p_tenant,
        jsonb_build_object(
            'job_id', p_turn->'job_id', 'run', p_turn->'run', 'agent', p_turn->'agent', 'domain', p_turn->'domain',
            'feature', p_turn->'feature'),
        (SELECT coalesce(jsonb_agg(without_user(given)), '[]')
         FROM jsonb_array_elements(coalesce(nullif(p_turn->'calls', 'null'), '[]')) AS given));
    DELETE FROM job_claims WHERE tenant_id = p_tenant AND job_id = (p_turn->>'job_id')::uuid;
    RETURN jsonb_build_object('erased', jsonb_build_object(
        'id', p_turn->'job_id', 'tenant', p_tenant, 'agent', p_turn->'agent', 'conversation_id', '', 'user_id', NULL,
        'state', 'cancelled', 'created_us', p_turn->'created_us', 'started_us', p_turn->'started_us',
        'finished_us', p_turn->'finished_us', 'run', p_turn->'run', 'attempts', p_turn->'attempts',
        'error', '{"code": "erased", "message": "whoever said it was erased"}'::jsonb));
END
$$;

-- As before (0016), but nothing of somebody who was erased meanwhile.
CREATE OR REPLACE FUNCTION commit_turn(p_tenant text, p_turn jsonb, OUT won boolean, OUT record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_taken_in jsonb;
    v_calls jsonb := coalesce(nullif(p_turn->'calls', 'null'), '[]');
    -- This job was never claimed before: no other claim is registered, and the books know no call of it but these.
    v_first boolean := coalesce(p_turn->>'run' = '1' AND p_turn->>'claim' = p_turn->>'started_us', false);
    v_job jobs;
    v_sequence bigint;
    v_new record;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    p_turn := unless_erased(p_tenant, p_turn);
    IF p_turn ? 'erased' THEN
        won := false;
        record := p_turn->'erased';
        RETURN;
    END IF;
    v_taken_in := nullif(nullif(p_turn->'taken_in', 'null'), '[]');
    v_job := insert_ended_job(p_tenant, p_turn);
    won := v_job.job_id IS NOT NULL;
    IF won THEN
        IF v_taken_in IS NOT NULL THEN
            PERFORM insert_ended_job(p_tenant, job), insert_dead_job(p_tenant, job)
            FROM jsonb_array_elements(v_taken_in) AS job;
        END IF;
        v_sequence := write_conversation(v_job, p_turn, v_taken_in);
        IF v_job.state <> 'succeeded' THEN
            PERFORM insert_dead_job(p_tenant, p_turn);
        END IF;
        IF NOT v_first THEN  -- the row of its end is the fence from now on
            DELETE FROM job_claims WHERE tenant_id = p_tenant AND job_id = v_job.job_id AND run = v_job.run;
        END IF;
    END IF;
    v_new := add_llm_calls(
        p_tenant,
        jsonb_build_object(
            'job_id', p_turn->'job_id', 'run', p_turn->'run', 'agent', p_turn->'agent',
            'conversation_id', p_turn->'conversation_id', 'user_id', p_turn->'user_id',
            'domain', p_turn->'domain', 'feature', p_turn->'feature'),
        v_calls);
    IF won AND v_first AND v_new.added = jsonb_array_length(v_calls) THEN
        record := job_record_from(v_job, v_job.attempts, v_new.usage, v_new.cost_nano_usd);
    ELSE
        record := job_record_of(p_tenant, (p_turn->>'job_id')::uuid, (p_turn->>'run')::integer);
    END IF;
    IF v_sequence IS NOT NULL THEN
        PERFORM insert_deliveries(p_tenant, p_turn, v_taken_in, v_sequence, record);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION end_attempt(p_tenant text, p_calls jsonb) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (add_llm_calls(p_tenant, '{}', scrub_calls(p_tenant, p_calls))).added;
END
$$;

CREATE OR REPLACE FUNCTION book_calls(p_tenant text, p_calls jsonb)
RETURNS TABLE (call_id uuid, cost_nano_usd bigint, tokens bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM add_llm_calls(p_tenant, '{}', scrub_calls(p_tenant, p_calls));
    RETURN QUERY
        SELECT c.call_id, c.cost_nano_usd, c.input_tokens + c.output_tokens FROM llm_calls AS c
        WHERE c.tenant_id = p_tenant AND c.call_id = ANY (
            SELECT (given->>'call_id')::uuid FROM jsonb_array_elements(p_calls) AS given);
END
$$;

-- What channels brought, as it may be kept: nothing that came before its sender (or addressee) was erased; what comes
-- later of a message that was sent before says no more to whom. Rows name their `subjects`, else they pass.
CREATE FUNCTION unless_erased_inbound(p_tenant text, p_rows jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (
        SELECT coalesce(jsonb_agg(CASE WHEN before IS NOT NULL AND given ? 'message_id'
            THEN given || '{"recipient": null, "details": {}, "error": null}' ELSE given END), '[]')
        FROM jsonb_array_elements(p_rows) AS given,
            LATERAL (SELECT CASE WHEN given ? 'subjects' THEN fence_of(p_tenant, given->'subjects') END AS before) AS fence
        WHERE before IS NULL OR from_unix_us((given->>'received_us')::bigint) > before);
END
$$;

-- Whether all these messages are still there, and stay until the transaction ends: for whoever writes what was made of
-- them. They are named by conversation, place and job: who returns may fill the same places again. The tenant must be set.
CREATE FUNCTION still_said(p_tenant text, p_conversation text, p_seqs bigint[], p_jobs uuid[]) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_found bigint;
BEGIN
    SELECT count(*) INTO v_found FROM (
        SELECT FROM messages AS m JOIN unnest(p_seqs, p_jobs) AS given(seq, job_id) USING (seq, job_id)
        WHERE m.tenant_id = p_tenant AND m.conversation_id = p_conversation FOR KEY SHARE OF m) AS held;
    RETURN v_found = cardinality(p_seqs);
END
$$;

-- --- erasing: by switchboard_ops, with the owner's rights ----------------------------------------------------------------

CREATE FUNCTION add_fences(p_tenant text, p_subjects text[], p_before timestamptz) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO erasure_fences AS f (tenant_id, subject, erased_before)
    SELECT DISTINCT p_tenant, subject, p_before FROM unnest(p_subjects) AS given(subject) ORDER BY subject
    ON CONFLICT (tenant_id, subject) DO UPDATE SET
        erased_before = greatest(f.erased_before, excluded.erased_before), made_at = now()
$$;

-- Adds two documents of counts.
CREATE FUNCTION add_counts(p_one jsonb, p_other jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(name, total), '{}') FROM (
        SELECT name, sum(value::bigint) AS total
        FROM (SELECT * FROM jsonb_each_text(p_one) UNION ALL SELECT * FROM jsonb_each_text(p_other)) AS each(name, value)
        GROUP BY name) AS sums WHERE total > 0
$$;

-- Deletes rows of one registered table, those made until p_before (NULL: all). By values of one of its columns.
CREATE FUNCTION delete_rows(
    p_tenant text, p_table text, p_column text, p_values text[], p_before timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_dated text := (SELECT dated_by FROM personal_data WHERE table_name = p_table);
    v_deleted bigint;
BEGIN
    EXECUTE format(
        'DELETE FROM %I WHERE tenant_id = $1 AND %I = ANY ($2::%s)%s', p_table, p_column,
        CASE p_column WHEN 'job_id' THEN 'uuid[]' ELSE 'text[]' END,
        CASE WHEN p_before IS NOT NULL AND v_dated IS NOT NULL THEN format(' AND %I <= $3', v_dated) ELSE '' END)
    USING p_tenant, p_values, p_before;
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    RETURN v_deleted;
END
$$;

-- What a turn could read: what was said first, then what was made of it, so that whoever is just writing that (and holds
-- what it was made of) is waited for and then seen. p_before NULL: all of it. The tenant must be set.
CREATE FUNCTION erase_readable(p_tenant text, p_user text, p_conversations text[], p_before timestamptz) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_counts jsonb := '{}';
    v_deleted bigint;
    v_data record;
BEGIN
    PERFORM FROM conversations WHERE tenant_id = p_tenant AND conversation_id = ANY (p_conversations)
    ORDER BY conversation_id FOR UPDATE;
    DELETE FROM messages AS m WHERE m.tenant_id = p_tenant AND m.conversation_id = ANY (p_conversations)
        AND (p_before IS NULL OR m.created_at <= p_before OR m.job_id IN (
            SELECT j.job_id FROM jobs AS j
            WHERE j.tenant_id = p_tenant AND j.job_id = m.job_id AND j.created_at <= p_before));
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('messages', v_deleted));
    DELETE FROM conversations AS c WHERE c.tenant_id = p_tenant AND c.conversation_id = ANY (p_conversations)
        AND (p_before IS NULL OR c.created_at <= p_before) AND NOT EXISTS (
            SELECT FROM messages AS m WHERE m.tenant_id = p_tenant AND m.conversation_id = c.conversation_id);
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('conversations', v_deleted));
    FOR v_data IN
        SELECT table_name, unnest(found_by) AS found_by FROM personal_data WHERE fate = 'now' ORDER BY table_name
    LOOP
        v_deleted := CASE
            WHEN v_data.found_by = 'user_id' AND p_user IS NOT NULL
            THEN delete_rows(p_tenant, v_data.table_name, 'user_id', ARRAY[p_user], p_before)
            WHEN v_data.found_by = 'conversation_id'
            THEN delete_rows(p_tenant, v_data.table_name, 'conversation_id', p_conversations, p_before)
            ELSE 0 END;
        v_counts := add_counts(v_counts, jsonb_build_object(v_data.table_name, v_deleted));
    END LOOP;
    RETURN v_counts;
END
$$;

-- Begins to erase a user (or one conversation: p_user NULL), or begins again with one that is under way: the fence, and
-- everything a turn could read, in one transaction. p_conversations: those that are known to be theirs; others of the user
-- are added. p_sealed says who it is to whoever goes on. No row: no such tenant.
CREATE FUNCTION begin_erasure(
    p_tenant text, p_subject text, p_sealed text, p_by text, p_user text, p_conversations text[], p_subjects text[],
    p_before_us bigint, p_lease_s integer) RETURNS TABLE (request uuid, conversations text[])
LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_counts jsonb;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    IF NOT EXISTS (SELECT FROM tenants WHERE tenant_id = p_tenant) THEN
        RETURN;
    END IF;
    conversations := ARRAY(
        SELECT unnest(p_conversations)
        UNION SELECT c.conversation_id FROM conversations AS c WHERE c.tenant_id = p_tenant AND c.user_id = p_user);
    PERFORM add_fences(p_tenant, p_subjects, from_unix_us(p_before_us));
    v_counts := erase_readable(p_tenant, p_user, conversations, NULL);
    INSERT INTO erasures AS e (tenant_id, kind, subject, sealed, erased_before, requested_by, counts, lease_until)
    VALUES (p_tenant, CASE WHEN p_user IS NULL THEN 'conversation' ELSE 'user' END, p_subject, p_sealed,
        from_unix_us(p_before_us), p_by, v_counts, now() + p_lease_s * interval '1 second')
    ON CONFLICT (tenant_id, subject) WHERE state <> 'done' DO UPDATE SET
        state = 'begun', sealed = excluded.sealed, requested_by = excluded.requested_by,
        erased_before = greatest(e.erased_before, excluded.erased_before), lease_until = excluded.lease_until,
        counts = add_counts(e.counts, excluded.counts)
    RETURNING request_id INTO request;
    RETURN NEXT;
END
$$;

-- The fence as it stays: at a moment after `begin_erasure` was over, so that whoever is admitted later reads nothing that
-- was. Also for conversations that were found later. Returns the transaction id to wait for (`erasure_passed`).
CREATE FUNCTION fence_erasure(p_tenant text, p_request uuid, p_sealed text, p_subjects text[], p_before_us bigint)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM add_fences(p_tenant, p_subjects, from_unix_us(p_before_us));
    UPDATE erasures SET state = 'fenced', erased_before = from_unix_us(p_before_us), sealed = p_sealed
    WHERE tenant_id = p_tenant AND request_id = p_request AND state <> 'done';
    RETURN pg_current_xact_id()::text;
END
$$;

-- A transaction id that is younger than all there are now.
CREATE FUNCTION erasure_horizon() RETURNS text LANGUAGE sql VOLATILE SET search_path = public, pg_temp AS $$
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text
$$;

-- Whether every transaction that began to write before the horizon is over.
CREATE FUNCTION erasure_passed(p_horizon text) RETURNS boolean LANGUAGE sql VOLATILE SET search_path = public, pg_temp AS $$
    SELECT pg_snapshot_xmin(pg_current_snapshot()) >= p_horizon::xid8
$$;

-- What was written by those that the fence did not stop; p_before_us is where it stands.
CREATE FUNCTION erase_again(p_tenant text, p_user text, p_conversations text[], p_before_us bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN erase_readable(
        p_tenant, p_user, p_conversations || ARRAY(
            SELECT conversation_id FROM conversations WHERE tenant_id = p_tenant AND user_id = p_user),
        from_unix_us(p_before_us));
END
$$;

-- The ledger loses the user (or the conversation), p_limit rows of the tenant at a time, after p_after: there is no index
-- by user that every turn would have to pay for. Rows of jobs that were admitted later stay as they are.
CREATE FUNCTION erase_calls(
    p_tenant text, p_user text, p_conversations text[], p_before_us bigint, p_after uuid, p_limit integer,
    OUT next uuid, OUT looked bigint, OUT erased bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_before constant timestamptz := from_unix_us(p_before_us);
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT (array_agg(page.call_id ORDER BY page.call_id DESC))[1], count(*) INTO next, looked FROM (
        SELECT call_id FROM llm_calls WHERE tenant_id = p_tenant AND call_id > p_after ORDER BY call_id LIMIT p_limit
    ) AS page;
    UPDATE llm_calls AS c SET
        user_id = CASE WHEN p_user IS NOT NULL THEN NULL ELSE c.user_id END, conversation_id = ''
    WHERE c.tenant_id = p_tenant AND c.call_id > p_after AND c.call_id <= next
        AND (c.user_id = p_user OR c.conversation_id = ANY (p_conversations))
        AND (EXISTS (SELECT FROM jobs AS j
                WHERE j.tenant_id = p_tenant AND j.job_id = c.job_id AND j.created_at <= v_before)
            OR (uuid7_moment(c.job_id) <= v_before AND NOT EXISTS (
                SELECT FROM jobs AS j
                WHERE j.tenant_id = p_tenant AND j.job_id = c.job_id AND j.created_at > v_before)));
    GET DIAGNOSTICS erased = ROW_COUNT;
END
$$;

-- Jobs with all that hangs on them, p_limit jobs of the tenant at a time, after p_after; without p_delete they are named
-- only, for what must go before them.
CREATE FUNCTION erase_jobs(
    p_tenant text, p_user text, p_conversations text[], p_before_us bigint, p_after uuid, p_limit integer,
    p_delete boolean, OUT next uuid, OUT looked bigint, OUT jobs uuid[], OUT counts jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_before constant timestamptz := from_unix_us(p_before_us);
    v_data record;
    v_deleted bigint;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    counts := '{}';
    SELECT (array_agg(page.job_id ORDER BY page.job_id DESC))[1], count(*), coalesce(array_agg(DISTINCT page.job_id)
        FILTER (WHERE page.created_at <= v_before
            AND (page.user_id = p_user OR page.conversation_id = ANY (p_conversations))), '{}')
    INTO next, looked, jobs FROM (
        SELECT job_id, user_id, conversation_id, created_at FROM public.jobs
        WHERE tenant_id = p_tenant AND job_id > p_after ORDER BY job_id LIMIT p_limit) AS page;
    IF p_delete AND jobs <> '{}' THEN
        DELETE FROM messages WHERE tenant_id = p_tenant AND job_id = ANY (jobs);
        FOR v_data IN
            SELECT table_name FROM personal_data WHERE fate = 'later' AND 'job_id' = ANY (found_by) ORDER BY table_name
        LOOP
            v_deleted := delete_rows(p_tenant, v_data.table_name, 'job_id', jobs::text[], NULL);
            counts := add_counts(counts, jsonb_build_object(v_data.table_name, v_deleted));
        END LOOP;
    END IF;
END
$$;

-- What has no column of its own for users: leftovers of channels (p_address is how the messenger knows the user), alerts
-- with what was told of them, and the tenant's settings with their history.
CREATE FUNCTION erase_apart(
    p_tenant text, p_user text, p_address text, p_conversations text[], p_before_us bigint, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_before constant timestamptz := from_unix_us(p_before_us);
    v_counts jsonb := '{}';
    v_deleted bigint;
    v_named constant text[] := ARRAY(
        SELECT 'conversation:' || unnest(p_conversations) UNION ALL SELECT 'user-month:' || p_user
        UNION ALL SELECT 'user:' || p_user);
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    DELETE FROM alert_events WHERE tenant_id = p_tenant AND scope = ANY (v_named) AND crossed_at <= v_before;
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('alert_events', v_deleted));
    DELETE FROM deliveries WHERE tenant_id = p_tenant AND job_id IS NULL AND body->>'scope' = ANY (v_named)
        AND created_at <= v_before;
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('deliveries', v_deleted));
    DELETE FROM channel_paces WHERE tenant_id = p_tenant AND peer <> '' AND (
        peer = p_address OR peer = ANY (ARRAY(
            SELECT split_part(room, ':', 2) FROM unnest(p_conversations) AS given(room) WHERE room LIKE 'ch-%:%')));
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('channel_paces', v_deleted));
    IF p_address IS NOT NULL THEN
        DELETE FROM channel_statuses WHERE tenant_id = p_tenant AND recipient = p_address AND received_at <= v_before;
        GET DIAGNOSTICS v_deleted = ROW_COUNT;
        v_counts := add_counts(v_counts, jsonb_build_object('channel_statuses', v_deleted));
        DELETE FROM inbound_kept WHERE tenant_id = p_tenant AND received_at <= v_before AND (
            jsonb_path_exists(payload, '$.** ? (@ == $it)', jsonb_build_object('it', p_address))
            OR position(to_json(p_address)::text IN coalesce(payload->>'start', '')) > 0);
        GET DIAGNOSTICS v_deleted = ROW_COUNT;
        v_counts := add_counts(v_counts, jsonb_build_object('inbound_kept', v_deleted));
    END IF;
    IF p_user IS NOT NULL THEN
        v_counts := add_counts(v_counts, unname_user(p_tenant, p_user, p_by));
    END IF;
    RETURN v_counts;
END
$$;

-- Takes a user out of the tenant's settings (`user_tiers`) and out of their history; that somebody was, is noted.
CREATE FUNCTION unname_user(p_tenant text, p_user text, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_place constant text[] := ARRAY['user_tiers', p_user];
    v_settings bigint;
    v_changes bigint;
BEGIN
    UPDATE tenants SET settings = settings #- v_place, settings_version = settings_version + 1, updated_at = now()
    WHERE tenant_id = p_tenant AND settings->'user_tiers' ? p_user;
    GET DIAGNOSTICS v_settings = ROW_COUNT;
    UPDATE tenant_changes SET
        before = before #- ('{settings}'::text[] || v_place), after = after #- ('{settings}'::text[] || v_place)
    WHERE tenant_id = p_tenant
        AND (before#>'{settings,user_tiers}' ? p_user OR after#>'{settings,user_tiers}' ? p_user);
    GET DIAGNOSTICS v_changes = ROW_COUNT;
    IF v_settings > 0 THEN
        PERFORM note_tenant_change(p_tenant, p_by, 'user_erased', NULL, NULL);
    END IF;
    RETURN jsonb_build_object('tenants', v_settings, 'tenant_changes', v_changes);
END
$$;

-- Where an erasure stands, for whoever works on it: more counts, and time until somebody else may.
CREATE FUNCTION note_erasure(p_tenant text, p_request uuid, p_counts jsonb, p_done boolean, p_lease_s integer)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_row erasures;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE erasures SET
        counts = add_counts(counts, p_counts), lease_until = now() + p_lease_s * interval '1 second',
        state = CASE WHEN p_done THEN 'done' ELSE state END, sealed = CASE WHEN NOT p_done THEN sealed END,
        done_at = CASE WHEN p_done THEN now() END
    WHERE tenant_id = p_tenant AND request_id = p_request AND state <> 'done' RETURNING * INTO v_row;
    RETURN erasure_resource(v_row);
END
$$;

CREATE FUNCTION erasure_resource(e erasures) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', e.request_id, 'tenant', e.tenant_id, 'kind', e.kind, 'state', e.state, 'counts', e.counts,
        'erased_before_us', to_unix_us(e.erased_before), 'requested_us', to_unix_us(e.requested_at),
        'requested_by', e.requested_by, 'done_us', to_unix_us(e.done_at)) WHERE e.request_id IS NOT NULL
$$;

-- Erasures that nobody is working on, for p_lease_s ours. By switchboard_ops.
CREATE FUNCTION claim_erasures(p_limit integer, p_lease_s integer)
RETURNS TABLE (tenant text, request uuid, sealed text, state text, erased_before_us bigint, requested_by text)
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE erasures AS e SET lease_until = now() + p_lease_s * interval '1 second'
    WHERE (e.tenant_id, e.request_id) IN (
        SELECT tenant_id, request_id FROM erasures WHERE state <> 'done' AND lease_until <= now()
        ORDER BY lease_until LIMIT p_limit FOR UPDATE SKIP LOCKED)
    RETURNING e.tenant_id, e.request_id, e.sealed, e.state, to_unix_us(e.erased_before), e.requested_by
$$;

-- Fences that nothing can meet any more: no job, no worker and no repeated delivery lives for a year.
CREATE FUNCTION drop_old_fences() RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_deleted bigint;
BEGIN
    DELETE FROM erasure_fences WHERE made_at < now() - interval '1 year';
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    RETURN v_deleted;
END
$$;

DO $$
DECLARE
    v_function text;
BEGIN
    FOREACH v_function IN ARRAY ARRAY[
        'begin_erasure(text, text, text, text, text, text[], text[], bigint, integer)',
        'fence_erasure(text, uuid, text, text[], bigint)', 'erase_again(text, text, text[], bigint)',
        'erase_calls(text, text, text[], bigint, uuid, integer)',
        'erase_jobs(text, text, text[], bigint, uuid, integer, boolean)',
        'erase_apart(text, text, text, text[], bigint, text)', 'note_erasure(text, uuid, jsonb, boolean, integer)'] LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO switchboard_ops', v_function);
    END LOOP;
END
$$;

-- --- people's side ----------------------------------------------------------------------------------------------------------

CREATE FUNCTION user_resource(u users) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', u.user_id, 'tenant', u.tenant_id, 'profile', u.profile, 'created_us', to_unix_us(u.created_at))
$$;

-- By id, after p_after.
CREATE FUNCTION list_users(p_tenant text, p_after text, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT user_resource(u) FROM users AS u
        WHERE u.tenant_id = p_tenant AND (p_after IS NULL OR u.user_id > p_after) ORDER BY u.user_id LIMIT p_limit;
END
$$;

-- One, with how much there is of them; NULL: no such user.
CREATE FUNCTION show_user(p_tenant text, p_user text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (
        SELECT user_resource(u) || (
            SELECT jsonb_build_object(
                'conversations', count(*), 'messages', coalesce(sum(said.messages), 0),
                'last_us', to_unix_us(max(c.updated_at)))
            FROM conversations AS c, LATERAL (
                SELECT count(*) AS messages FROM messages AS m
                WHERE m.tenant_id = p_tenant AND m.conversation_id = c.conversation_id) AS said
            WHERE c.tenant_id = p_tenant AND c.user_id = p_user)
        FROM users AS u WHERE u.tenant_id = p_tenant AND u.user_id = p_user);
END
$$;

CREATE FUNCTION conversations_of(p_tenant text, p_user text) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY SELECT conversation_id FROM conversations WHERE tenant_id = p_tenant AND user_id = p_user;
END
$$;

-- Everything the books hold of a user, row by row: {"table", "row"}.
CREATE FUNCTION export_user(p_tenant text, p_user text, p_address text) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_conversations text[];
    v_jobs uuid[];
    v_data record;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_conversations := ARRAY(
        SELECT conversation_id FROM conversations WHERE tenant_id = p_tenant AND user_id = p_user);
    v_jobs := ARRAY(SELECT DISTINCT job_id FROM jobs
        WHERE tenant_id = p_tenant AND (user_id = p_user OR conversation_id = ANY (v_conversations)));
    FOR v_data IN SELECT * FROM personal_data WHERE exported AND found_by <> '{}' ORDER BY table_name LOOP
        RETURN QUERY EXECUTE format(
            'SELECT jsonb_build_object(''table'', %L, ''row'', to_jsonb(t)) FROM %I AS t WHERE t.tenant_id = $1 AND (%s)',
            v_data.table_name, v_data.table_name, (
                SELECT string_agg(CASE name WHEN 'user_id' THEN 't.user_id = $2'
                    WHEN 'job_id' THEN 't.job_id = ANY ($4)' ELSE 't.conversation_id = ANY ($3)' END, ' OR ')
                FROM unnest(v_data.found_by) AS found(name)))
        USING p_tenant, p_user, v_conversations, v_jobs;
    END LOOP;
    IF p_address IS NOT NULL THEN
        RETURN QUERY
            SELECT jsonb_build_object('table', 'channel_statuses', 'row', to_jsonb(s)) FROM channel_statuses AS s
            WHERE s.tenant_id = p_tenant AND s.recipient = p_address;
        RETURN QUERY
            SELECT jsonb_build_object('table', 'inbound_kept', 'row', to_jsonb(k)) FROM inbound_kept AS k
            WHERE k.tenant_id = p_tenant
                AND jsonb_path_exists(k.payload, '$.** ? (@ == $it)', jsonb_build_object('it', p_address));
    END IF;
END
$$;

CREATE FUNCTION find_erasure(p_tenant text, p_request uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (SELECT erasure_resource(e) FROM erasures AS e WHERE e.tenant_id = p_tenant AND e.request_id = p_request);
END
$$;

-- The sum behind the counter of a user's month.
CREATE FUNCTION spent_by_user(
    p_tenant text, p_user text, p_month timestamptz, OUT cost_nano_usd bigint, OUT tokens bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT coalesce(sum(c.cost_nano_usd), 0), coalesce(sum(c.input_tokens + c.output_tokens), 0)
    INTO spent_by_user.cost_nano_usd, spent_by_user.tokens
    FROM llm_calls AS c WHERE c.tenant_id = p_tenant AND c.user_id = p_user
        AND c.call_id >= uuid7_floor(p_month)
        AND c.call_id < uuid7_floor((p_month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
END
$$;

-- As before (0017), but for what was spent in conversations that were erased: together they are none.
CREATE OR REPLACE FUNCTION spending_conversations(p_tenant text, p_since_us bigint, p_least_nano_usd bigint)
RETURNS TABLE (who text, cost_nano_usd bigint)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
DECLARE
    v_active text[];
    v_first timestamptz;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_active := ARRAY(
        SELECT DISTINCT c.conversation_id FROM llm_calls AS c
        WHERE c.conversation_id <> '' AND c.tenant_id = p_tenant AND c.call_id >= uuid7_floor(from_unix_us(p_since_us)));
    SELECT min(created_at) INTO v_first FROM conversations
    WHERE tenant_id = p_tenant AND conversation_id = ANY (v_active);
    RETURN QUERY
        SELECT c.conversation_id, sum(c.cost_nano_usd)::bigint FROM llm_calls AS c
        WHERE c.tenant_id = p_tenant AND c.conversation_id = ANY (v_active)
            AND c.call_id >= uuid7_floor(least(v_first, from_unix_us(p_since_us)) - interval '1 day')
        GROUP BY c.conversation_id HAVING sum(c.cost_nano_usd) >= p_least_nano_usd;
END
$$;

-- --- retention: by switchboard_ops, a few thousand rows at a time ---------------------------------------------------------

-- One process of the deployment does it, once in a while.
CREATE TABLE retention_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ran_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO retention_clock DEFAULT VALUES;
REVOKE INSERT, UPDATE, DELETE ON retention_clock FROM switchboard_app;
REVOKE INSERT, DELETE ON retention_clock FROM switchboard_ops;

CREATE FUNCTION claim_retention(p_every_s integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE retention_clock SET ran_at = now() WHERE ran_at < now() - p_every_s * interval '1 second';
    RETURN FOUND;
END
$$;

-- Messages made before p_cutoff, and of each conversation all but the newest p_most; conversations that were silent since
-- and have none left. Looks at p_limit conversations after p_after; `next` is where to go on, NULL at the end.
CREATE FUNCTION retire_conversations(
    p_tenant text, p_cutoff timestamptz, p_most integer, p_after text, p_limit integer, p_batch integer,
    OUT next text, OUT messages bigint, OUT conversations bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_page text[];
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_page := ARRAY(
        SELECT c.conversation_id FROM conversations AS c
        WHERE c.tenant_id = p_tenant AND c.conversation_id > p_after ORDER BY c.conversation_id LIMIT p_limit);
    DELETE FROM messages AS old WHERE (old.tenant_id, old.conversation_id, old.seq) IN (
        SELECT m.tenant_id, m.conversation_id, m.seq FROM conversations AS c
        CROSS JOIN LATERAL (
            SELECT m.seq, m.created_at FROM messages AS m
            WHERE m.tenant_id = p_tenant AND m.conversation_id = c.conversation_id ORDER BY m.seq LIMIT 1) AS first
        JOIN messages AS m ON m.tenant_id = p_tenant AND m.conversation_id = c.conversation_id
        WHERE c.tenant_id = p_tenant AND c.conversation_id = ANY (v_page)
            AND (first.created_at < p_cutoff OR first.seq < c.next_seq - p_most)
            AND (m.created_at < p_cutoff OR m.seq < c.next_seq - p_most)
        LIMIT p_batch);
    GET DIAGNOSTICS messages = ROW_COUNT;
    DELETE FROM conversations AS c WHERE c.tenant_id = p_tenant AND c.conversation_id = ANY (v_page)
        AND c.updated_at < p_cutoff AND NOT EXISTS (
            SELECT FROM messages AS m WHERE m.tenant_id = p_tenant AND m.conversation_id = c.conversation_id);
    GET DIAGNOSTICS conversations = ROW_COUNT;
    next := CASE WHEN messages = p_batch THEN p_after
        WHEN cardinality(v_page) = p_limit THEN v_page[p_limit] END;
END
$$;

-- Conversations beyond the newest p_most of each user, with all that was said in them. How many went.
CREATE FUNCTION cap_conversations(p_tenant text, p_most integer, p_batch integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_deleted bigint;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    DELETE FROM conversations WHERE tenant_id = p_tenant AND conversation_id IN (
        SELECT conversation_id FROM (
            SELECT conversation_id, row_number() OVER (
                PARTITION BY user_id ORDER BY updated_at DESC, conversation_id DESC) AS place
            FROM conversations WHERE tenant_id = p_tenant AND user_id IS NOT NULL) AS ranked
        WHERE place > p_most LIMIT p_batch);
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    RETURN v_deleted;
END
$$;

-- Jobs that ended before p_cutoff, with all that hangs on them; the ledger stays. How many went.
CREATE FUNCTION retire_jobs(p_tenant text, p_cutoff timestamptz, p_batch integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_jobs uuid[];
    v_data record;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_jobs := ARRAY(
        SELECT job_id FROM jobs WHERE tenant_id = p_tenant AND job_id < uuid7_floor(p_cutoff)
        GROUP BY job_id HAVING max(finished_at) < p_cutoff ORDER BY job_id LIMIT p_batch);
    FOR v_data IN
        SELECT table_name FROM personal_data WHERE fate = 'later' AND 'job_id' = ANY (found_by) ORDER BY table_name
    LOOP
        PERFORM delete_rows(p_tenant, v_data.table_name, 'job_id', v_jobs::text[], NULL);
    END LOOP;
    RETURN cardinality(v_jobs);
END
$$;

-- Rows of the tables that say so in `personal_data`, made before p_cutoff; then users of whom nothing is left. How many went.
CREATE FUNCTION retire_rows(p_tenant text, p_cutoff timestamptz, p_batch integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_users text[];
    v_data record;
    v_deleted bigint;
    v_total bigint := 0;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    FOR v_data IN SELECT table_name, dated_by FROM personal_data WHERE retired ORDER BY table_name LOOP
        EXECUTE format(
            'DELETE FROM %1$I WHERE tenant_id = $1 AND ctid = ANY (ARRAY('
            'SELECT ctid FROM %1$I WHERE tenant_id = $1 AND %2$I < $2 LIMIT $3))', v_data.table_name, v_data.dated_by)
        USING p_tenant, p_cutoff, p_batch;
        GET DIAGNOSTICS v_deleted = ROW_COUNT;
        v_total := v_total + v_deleted;
    END LOOP;
    v_users := ARRAY(
        SELECT u.user_id FROM users AS u WHERE u.tenant_id = p_tenant AND u.created_at < p_cutoff AND NOT EXISTS (
            SELECT FROM conversations AS c WHERE c.tenant_id = p_tenant AND c.user_id = u.user_id) LIMIT p_batch);
    FOR v_data IN
        SELECT table_name FROM personal_data WHERE fate = 'now' AND 'user_id' = ANY (found_by) ORDER BY table_name
    LOOP
        PERFORM delete_rows(p_tenant, v_data.table_name, 'user_id', v_users, p_cutoff);
    END LOOP;
    RETURN v_total + cardinality(v_users);
END
$$;

-- As before (0020), one by one where somebody of the tenant's was erased: commit_turn knows what to do then.
CREATE OR REPLACE FUNCTION commit_turns(p_tenants text[], p_turns jsonb[]) RETURNS TABLE (job_id uuid, record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp SET lock_timeout = '250ms' AS $$
#variable_conflict use_column
DECLARE
    v_tenant text;
    v_turns jsonb;
    v_fenced boolean;
    v_won uuid[];
    v_end record;
BEGIN
    PERFORM pg_current_xact_id();  -- before fences are looked for (fence_of)
    FOR v_tenant, v_turns IN SELECT * FROM unnest(p_tenants, p_turns) LOOP
        PERFORM set_config('switchboard.tenant', v_tenant, true);
        v_won := '{}';
        v_fenced := EXISTS (
            SELECT FROM jsonb_array_elements(v_turns) AS turn
            CROSS JOIN LATERAL jsonb_array_elements_text(coalesce(turn->'subjects', '[]')) AS given(subject)
            JOIN erasure_fences AS f ON f.tenant_id = v_tenant AND f.subject = given.subject);
        IF NOT v_fenced AND NOT EXISTS (SELECT FROM endpoints_for(v_tenant, 'job.succeeded')) THEN
            FOR v_end IN SELECT * FROM commit_plain_turns(v_tenant, v_turns) LOOP
                IF NOT v_end.is_theirs THEN
                    RAISE EXCEPTION 'the conversation belongs to another user' USING ERRCODE = 'SB001';
                END IF;
                job_id := v_end.job_id;
                record := coalesce(v_end.record, job_record_of(v_tenant, v_end.job_id, 1));
                v_won := v_won || v_end.job_id;
                RETURN NEXT;
            END LOOP;
        END IF;
        IF cardinality(v_won) < jsonb_array_length(v_turns) THEN
            RETURN QUERY SELECT (turn->>'job_id')::uuid, ended.record
                FROM jsonb_array_elements(v_turns) AS turn, commit_turn(v_tenant, turn) AS ended
                WHERE (turn->>'job_id')::uuid <> ALL (v_won);
        END IF;
    END LOOP;
END
$$;
