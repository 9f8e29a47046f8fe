-- A reply that no model made, as the budget did not allow one or no provider gave one, says so: in the job's row, and
-- wherever the job is shown. It answers the caller and is no message of the conversation: what no model said is no
-- history to one, nor worth remembering. Workers of the release before tell nothing of it, and make no such reply.

ALTER TABLE jobs ADD COLUMN degraded text;
ALTER TABLE jobs ADD CONSTRAINT degraded_succeeded
    CHECK (degraded IS NULL OR (degraded IN ('budget', 'providers') AND state = 'succeeded'))
    NOT VALID;  -- older rows say nothing, so there is nothing to look through

CREATE OR REPLACE FUNCTION job_record_from(p_job jobs, p_attempts bigint, p_usage jsonb, p_cost_nano_usd bigint)
RETURNS jsonb
LANGUAGE sql STABLE AS $$  -- no search_path of its own: then it can be inlined
    SELECT jsonb_build_object(
        'id', p_job.job_id, 'tenant', p_job.tenant_id, 'agent', p_job.agent,
        'conversation_id', p_job.conversation_id, 'user_id', p_job.user_id, 'state', p_job.state,
        'merged_into', p_job.merged_into,
        'created_us', to_unix_us(p_job.created_at), 'started_us', to_unix_us(p_job.started_at),
        'finished_us', to_unix_us(p_job.finished_at), 'run', p_job.run, 'attempts', p_attempts, 'position', NULL,
        'reply', p_job.reply, 'incomplete', p_job.incomplete, 'degraded', p_job.degraded, 'cache', p_job.cache,
        'error', p_job.error, 'usage', p_usage, 'cost_nano_usd', p_cost_nano_usd, 'metadata', p_job.metadata)
$$;

-- As before; a merged job shows also this of the one that answered for it.
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
        SELECT reply, incomplete, degraded, error
        INTO v_job.reply, v_job.incomplete, v_job.degraded, v_job.error FROM jobs
        WHERE tenant_id = p_tenant AND job_id = v_job.merged_into ORDER BY run DESC LIMIT 1;
    END IF;
    v_attempts := v_job.attempts;
    v_since := v_job.created_at;
    IF v_job.run > 1 THEN
        SELECT sum(attempts), min(created_at) INTO v_attempts, v_since FROM jobs
        WHERE tenant_id = p_tenant AND job_id = p_job AND run <= v_job.run;
    END IF;
    -- No call is older than its job, give or take the clocks: the bound spares the partitions before.
    SELECT coalesce(sum(cost_nano_usd), 0), CASE WHEN count(*) > 0 THEN jsonb_build_object(
            'input_tokens', sum(input_tokens), 'output_tokens', sum(output_tokens),
            'cached_tokens', sum(cached_tokens), 'cache_write_tokens', sum(cache_write_tokens),
            'reasoning_tokens', sum(reasoning_tokens)) END
    INTO v_cost, v_usage FROM llm_calls
    WHERE tenant_id = p_tenant AND job_id = p_job AND call_id >= uuid7_floor(v_since - interval '1 day');
    RETURN job_record_from(v_job, v_attempts, v_usage, v_cost);
END
$$;

CREATE OR REPLACE FUNCTION insert_ended_job(p_tenant text, p_turn jsonb) RETURNS jobs
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_job jobs;
BEGIN
    INSERT INTO jobs (
        tenant_id, job_id, run, state, merged_into, agent, queue, conversation_id, user_id, domain, feature, metadata,
        attempts, reply, incomplete, degraded, cache, error, created_at, started_at, finished_at)
    SELECT
        p_tenant, t.job_id, t.run, t.state, t.merged_into, t.agent, t.queue, t.conversation_id, t.user_id, t.domain,
        t.feature, coalesce(t.metadata, '{}'), t.attempts, t.reply, t.incomplete, t.degraded, t.cache, t.error,
        from_unix_us(t.created_us), from_unix_us(t.started_us), from_unix_us(t.finished_us)
    FROM jsonb_to_record(p_turn) AS t(
        job_id uuid, run integer, state text, merged_into uuid, agent text, queue text, conversation_id text,
        user_id text, domain text, feature text, metadata jsonb, attempts integer, reply text, incomplete text,
        degraded text, cache text, error jsonb, created_us bigint, started_us bigint, finished_us bigint, claim bigint)
    WHERE NOT EXISTS (
        SELECT FROM job_claims c
        WHERE c.tenant_id = p_tenant AND c.job_id = t.job_id AND c.run = t.run AND c.claim > t.claim)
    ON CONFLICT (tenant_id, job_id, run) DO NOTHING
    RETURNING * INTO v_job;
    RETURN v_job;
END
$$;

-- As before, but for the reply of a degraded one.
CREATE OR REPLACE FUNCTION write_messages(p_job jobs, p_turn jsonb, p_before integer, p_asks boolean, p_seq bigint)
RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_before uuid[] := '{}';
    v_ids uuid[];
BEGIN
    IF p_job.user_id IS NOT NULL THEN
        INSERT INTO users (tenant_id, user_id, created_at) VALUES (p_job.tenant_id, p_job.user_id, p_job.created_at)
        ON CONFLICT (tenant_id, user_id) DO NOTHING;
    END IF;
    IF p_before > 0 THEN
        SELECT array_agg(add_message(
            p_job.tenant_id, job, 'user', job->>'message', p_seq + place, (job->>'created_us')::bigint) ORDER BY place)
        INTO v_before FROM taken_in(p_job.tenant_id, p_turn);
    END IF;
    WITH new AS (
        INSERT INTO messages (tenant_id, conversation_id, seq, message_id, job_id, role, agent, body, created_at)
        SELECT p_job.tenant_id, p_job.conversation_id, p_seq + p_before + said.place, uuid7(), p_job.job_id, said.role,
            p_job.agent, said.body, said.at
        FROM (VALUES (0, 'user', p_turn->>'message', p_job.created_at, p_asks),
            (p_asks::integer, 'assistant', p_job.reply, p_job.finished_at,
                p_job.reply IS NOT NULL AND p_job.degraded IS NULL)
        ) AS said(place, role, body, at, was) WHERE said.was
        ON CONFLICT (tenant_id, job_id, role) DO NOTHING  -- the job has said it before
        RETURNING message_id, seq)
    SELECT array_agg(message_id ORDER BY seq) INTO v_ids FROM new;
    v_ids := array_remove(v_before, NULL) || v_ids;
    IF (p_turn->>'memory')::boolean AND cardinality(v_ids) > 0 THEN
        INSERT INTO memory_outbox (tenant_id, user_id, conversation_id, job_id, message_ids)
        VALUES (p_job.tenant_id, p_job.user_id, p_job.conversation_id, p_job.job_id, v_ids);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION write_conversation(p_job jobs, p_turn jsonb, p_taken_in jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_asks boolean := true;
    v_before integer := 0;
    v_owed integer := (p_turn->>'callback_url' IS NOT NULL)::integer;
    v_places record;
BEGIN
    IF p_taken_in IS NOT NULL THEN
        v_owed := v_owed + (SELECT count(*) FROM owed_for_taken_in(p_turn));
        SELECT count(*) INTO v_before FROM taken_in(p_job.tenant_id, p_turn);
    END IF;
    IF p_job.state <> 'rejected' THEN
        IF p_job.run > 1 THEN  -- an earlier run may have asked already
            v_asks := NOT EXISTS (
                SELECT FROM messages
                WHERE tenant_id = p_job.tenant_id AND job_id = p_job.job_id AND role = 'user');
        END IF;
        v_places := take_places(
            p_job.tenant_id, p_job.conversation_id, p_job.user_id,
            v_before + v_asks::integer + (p_job.reply IS NOT NULL AND p_job.degraded IS NULL)::integer,
            v_owed, p_job.created_at, p_job.finished_at);
        IF v_places.first_seq IS NOT NULL THEN
            PERFORM write_messages(p_job, p_turn, v_before, v_asks, v_places.first_seq);
            RETURN v_places.first_delivery;
        ELSIF p_job.state = 'succeeded' THEN
            RAISE EXCEPTION 'the conversation belongs to another user' USING ERRCODE = 'SB001';
        END IF;
    END IF;
    IF v_owed > 0 THEN
        v_places := take_places(
            p_job.tenant_id, p_job.conversation_id, NULL, 0, v_owed, p_job.created_at, p_job.finished_at);
        RETURN v_places.first_delivery;
    END IF;
    RETURN NULL;
END
$$;
