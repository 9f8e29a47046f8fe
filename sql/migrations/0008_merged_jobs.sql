-- Messages that live on in a later one's turn: merged into it, or cut short by it before they were started.
--
-- Their rows, and what their users said, are written with the end of the turn that took them in, in its transaction and
-- before its own message, so that the history of a conversation is in the order it was said.

ALTER TABLE jobs ADD COLUMN merged_into uuid;
ALTER TABLE jobs ADD CONSTRAINT merged_says_into CHECK ((state = 'merged') = (merged_into IS NOT NULL));

-- As before, and a merged job shows what became of the one that answered for it. Its own cost is nothing.
CREATE OR REPLACE FUNCTION job_record_of(p_tenant text, p_job uuid, p_run integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
DECLARE
    v_job jobs;
    v_attempts bigint;
    v_since timestamptz;
    v_cost bigint;
    v_usage jsonb;
BEGIN
    SELECT * INTO v_job FROM jobs
    WHERE tenant_id = p_tenant AND job_id = p_job AND (p_run IS NULL OR run = p_run) ORDER BY run DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_job.merged_into IS NOT NULL THEN
        SELECT reply, incomplete, error INTO v_job.reply, v_job.incomplete, v_job.error FROM jobs
        WHERE tenant_id = p_tenant AND job_id = v_job.merged_into ORDER BY run DESC LIMIT 1;
    END IF;
    SELECT sum(attempts), min(created_at) INTO v_attempts, v_since FROM jobs
    WHERE tenant_id = p_tenant AND job_id = p_job AND run <= v_job.run;
    -- No call is older than its job, give or take the clocks: the bound spares the partitions before.
    SELECT coalesce(sum(cost_nano_usd), 0), CASE WHEN count(*) > 0 THEN jsonb_build_object(
            'input_tokens', sum(input_tokens), 'output_tokens', sum(output_tokens),
            'cached_tokens', sum(cached_tokens), 'cache_write_tokens', sum(cache_write_tokens),
            'reasoning_tokens', sum(reasoning_tokens)) END
    INTO v_cost, v_usage FROM llm_calls
    WHERE tenant_id = p_tenant AND job_id = p_job AND call_id >= uuid7_floor(v_since - interval '1 day');
    RETURN jsonb_build_object(
        'id', v_job.job_id, 'tenant', v_job.tenant_id, 'agent', v_job.agent,
        'conversation_id', v_job.conversation_id, 'user_id', v_job.user_id, 'state', v_job.state,
        'merged_into', v_job.merged_into,
        'created_us', to_unix_us(v_job.created_at), 'started_us', to_unix_us(v_job.started_at),
        'finished_us', to_unix_us(v_job.finished_at), 'run', v_job.run, 'attempts', v_attempts, 'position', NULL,
        'reply', v_job.reply, 'incomplete', v_job.incomplete, 'error', v_job.error, 'usage', v_usage,
        'cost_nano_usd', v_cost, 'metadata', v_job.metadata);
END
$$;

CREATE OR REPLACE FUNCTION insert_ended_job(p_tenant text, p_turn jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO jobs (
        tenant_id, job_id, run, state, merged_into, agent, queue, conversation_id, user_id, domain, feature, metadata,
        attempts, reply, incomplete, error, created_at, started_at, finished_at)
    SELECT
        p_tenant, t.job_id, t.run, t.state, t.merged_into, t.agent, t.queue, t.conversation_id, t.user_id, t.domain,
        t.feature, coalesce(t.metadata, '{}'), t.attempts, t.reply, t.incomplete, t.error,
        from_unix_us(t.created_us), from_unix_us(t.started_us), from_unix_us(t.finished_us)
    FROM jsonb_to_record(p_turn) AS t(
        job_id uuid, run integer, state text, merged_into uuid, agent text, queue text, conversation_id text,
        user_id text, domain text, feature text, metadata jsonb, attempts integer, reply text, incomplete text,
        error jsonb, created_us bigint, started_us bigint, finished_us bigint)
    ON CONFLICT (tenant_id, job_id, run) DO NOTHING;
    RETURN FOUND;
END
$$;

-- As before; a later run is given its question whole, so the messages merged into an earlier one are not history to it.
CREATE FUNCTION recent_messages(p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer)
RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (
        WITH recent AS (
            SELECT seq, role, body FROM messages m
            WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND job_id <> p_job
                AND role IN ('user', 'assistant')
                AND (p_run = 1 OR NOT EXISTS (
                    SELECT FROM jobs j
                    WHERE j.tenant_id = p_tenant AND j.job_id = m.job_id AND j.merged_into = p_job))
            ORDER BY seq DESC LIMIT greatest(p_history, 0))
        SELECT coalesce(jsonb_agg(jsonb_build_object('role', role, 'content', body) ORDER BY seq), '[]')
        FROM recent WHERE seq >= coalesce((SELECT min(seq) FROM recent WHERE role = 'user'), 0));
END
$$;
DROP FUNCTION recent_messages(text, uuid, text, integer);

CREATE OR REPLACE FUNCTION turn_context(
    p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer,
    OUT ended jsonb, OUT conversation_user text, OUT history jsonb, OUT settings jsonb, OUT tenant_known boolean)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    ended := job_record_of(p_tenant, p_job, p_run);
    SELECT c.user_id INTO conversation_user FROM conversations c
    WHERE c.tenant_id = p_tenant AND c.conversation_id = p_conversation;
    history := recent_messages(p_tenant, p_job, p_run, p_conversation, p_history);
    SELECT t.settings, t.disabled_at IS NULL INTO settings, tenant_known FROM tenants t WHERE t.tenant_id = p_tenant;
    settings := coalesce(settings, '{}');
    tenant_known := coalesce(tenant_known, false);
END
$$;

-- The messages a turn took in (`taken_in`, oldest first; NULL: none), as rows that may still be written: a job of an
-- earlier run has its message already.
CREATE FUNCTION taken_in(p_tenant text, p_turn jsonb) RETURNS TABLE (place bigint, job jsonb)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT row_number() OVER (ORDER BY given.place) - 1, given.job
    FROM jsonb_array_elements(coalesce(nullif(p_turn->'taken_in', 'null'), '[]')) WITH ORDINALITY AS given(job, place)
    WHERE given.job->>'message' <> '' AND NOT EXISTS (
        SELECT FROM messages
        WHERE tenant_id = p_tenant AND job_id = (given.job->>'job_id')::uuid AND role = 'user')
$$;

-- What was said, from p_seq on: the messages taken in, the user's own and the reply; and memory's share of it.
DROP FUNCTION write_messages(text, jsonb, boolean, bigint);
CREATE FUNCTION write_messages(p_tenant text, p_turn jsonb, p_before integer, p_asks boolean, p_seq bigint)
RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_ids uuid[] := '{}';
    v_seq bigint := p_seq + p_before;
BEGIN
    IF p_turn->>'user_id' IS NOT NULL THEN
        INSERT INTO users (tenant_id, user_id, created_at)
        VALUES (p_tenant, p_turn->>'user_id', from_unix_us((p_turn->>'created_us')::bigint))
        ON CONFLICT (tenant_id, user_id) DO NOTHING;
    END IF;
    IF p_before > 0 THEN
        SELECT array_agg(add_message(
            p_tenant, job, 'user', job->>'message', p_seq + place, (job->>'created_us')::bigint) ORDER BY place)
        INTO v_ids FROM taken_in(p_tenant, p_turn);
    END IF;
    IF p_asks THEN
        v_ids := v_ids || add_message(
            p_tenant, p_turn, 'user', p_turn->>'message', v_seq, (p_turn->>'created_us')::bigint);
    END IF;
    IF p_turn->>'reply' IS NOT NULL THEN
        v_ids := v_ids || add_message(p_tenant, p_turn, 'assistant', p_turn->>'reply', v_seq + p_asks::integer,
            (p_turn->>'finished_us')::bigint);
    END IF;
    v_ids := array_remove(v_ids, NULL);
    IF (p_turn->>'memory')::boolean AND cardinality(v_ids) > 0 THEN
        INSERT INTO memory_outbox (tenant_id, user_id, conversation_id, job_id, message_ids)
        VALUES (p_tenant, p_turn->>'user_id', p_turn->>'conversation_id', (p_turn->>'job_id')::uuid, v_ids);
    END IF;
END
$$;

-- Events owed to callers of jobs taken in: of those that ended by themselves. A merged one has its survivor's.
CREATE FUNCTION owed_for_taken_in(p_turn jsonb) RETURNS TABLE (place bigint, job jsonb)
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT row_number() OVER (ORDER BY given.place) - 1, given.job
    FROM jsonb_array_elements(coalesce(nullif(p_turn->'taken_in', 'null'), '[]')) WITH ORDINALITY AS given(job, place)
    WHERE given.job->>'callback_url' IS NOT NULL AND given.job->>'state' <> 'merged'
$$;

-- As before, with places for the messages taken in, and for the events owed for them, which come first.
CREATE OR REPLACE FUNCTION write_conversation(p_tenant text, p_turn jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    t record;
    v_asks boolean;
    v_before integer := 0;
    v_seq bigint;
    v_delivery bigint;
BEGIN
    SELECT *, (callback_url IS NOT NULL)::integer AS deliveries INTO t FROM jsonb_to_record(p_turn) AS given(
        job_id uuid, run integer, state text, conversation_id text, user_id text, reply text, callback_url text,
        created_us bigint, finished_us bigint, taken_in jsonb);
    IF jsonb_typeof(t.taken_in) = 'array' THEN
        t.deliveries := t.deliveries + (SELECT count(*) FROM owed_for_taken_in(p_turn));
    END IF;
    IF t.state <> 'rejected' THEN
        -- An earlier run has asked already.
        v_asks := t.run = 1 OR NOT EXISTS (
            SELECT FROM messages WHERE tenant_id = p_tenant AND job_id = t.job_id AND role = 'user');
        IF jsonb_typeof(t.taken_in) = 'array' THEN
            SELECT count(*) INTO v_before FROM taken_in(p_tenant, p_turn);
        END IF;
        SELECT * INTO v_seq, v_delivery FROM take_places(
            p_tenant, t.conversation_id, t.user_id, v_before + v_asks::integer + (t.reply IS NOT NULL)::integer,
            t.deliveries, from_unix_us(t.created_us), from_unix_us(t.finished_us));
    END IF;
    IF v_seq IS NOT NULL THEN
        PERFORM write_messages(p_tenant, p_turn, v_before, v_asks, v_seq);
    ELSIF t.state = 'succeeded' THEN
        RAISE EXCEPTION 'the conversation belongs to another user' USING ERRCODE = 'SB001';
    ELSIF t.deliveries > 0 THEN
        SELECT first_delivery INTO v_delivery FROM take_places(
            p_tenant, t.conversation_id, NULL, 0, t.deliveries, from_unix_us(t.created_us), from_unix_us(t.finished_us));
    END IF;
    RETURN v_delivery;
END
$$;

-- As before; the winner also ends the jobs it took in.
CREATE OR REPLACE FUNCTION commit_turn(p_tenant text, p_turn jsonb, OUT won boolean, OUT record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_sequence bigint;
    v_job uuid := p_turn->>'job_id';
    v_run integer := p_turn->>'run';
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    -- A takeover that is not committed yet is not seen: then this end stands, and the taker adopts it at its own.
    won := NOT EXISTS (
        SELECT FROM job_claims
        WHERE tenant_id = p_tenant AND job_id = v_job AND run = v_run AND claim > (p_turn->>'claim')::bigint);
    won := won AND insert_ended_job(p_tenant, p_turn);
    IF won THEN
        IF jsonb_typeof(p_turn->'taken_in') = 'array' THEN
            PERFORM insert_ended_job(p_tenant, job), insert_dead_job(p_tenant, job)
            FROM jsonb_array_elements(p_turn->'taken_in') AS job;
        END IF;
        v_sequence := write_conversation(p_tenant, p_turn);
        PERFORM insert_dead_job(p_tenant, p_turn);
        DELETE FROM job_claims WHERE tenant_id = p_tenant AND job_id = v_job AND run = v_run;
    END IF;
    PERFORM add_llm_calls(
        p_tenant,
        jsonb_build_object(
            'job_id', p_turn->'job_id', 'run', p_turn->'run', 'agent', p_turn->'agent',
            'conversation_id', p_turn->'conversation_id', 'user_id', p_turn->'user_id',
            'domain', p_turn->'domain', 'feature', p_turn->'feature'),
        coalesce(nullif(p_turn->'calls', 'null'), '[]'));
    record := job_record_of(p_tenant, v_job, v_run);
    IF won AND v_sequence IS NOT NULL THEN
        PERFORM insert_delivery(p_tenant, job, v_sequence + place, job_record_of(p_tenant, (job->>'job_id')::uuid, 1))
        FROM owed_for_taken_in(p_turn);
        PERFORM insert_delivery(
            p_tenant, p_turn, v_sequence + (SELECT count(*) FROM owed_for_taken_in(p_turn)), record);
    END IF;
END
$$;
