-- Turns that end at the same moment are committed together: one transaction, and one statement for all plain ones of a
-- tenant. Most of what a commit costs is beginning statements, not the rows they write.
--
-- A plain turn is a first attempt that succeeded, took nothing in, and of whose end nobody is to be told. Any other one is
-- committed by `commit_turn`, here as well.

-- What a turn was answered with, beside what was said: shown with the job.
ALTER TABLE jobs ADD COLUMN context jsonb;
ALTER TABLE jobs ADD CONSTRAINT context_is_an_object CHECK (jsonb_typeof(context) = 'object')
    NOT VALID;  -- older rows have none, so there is nothing to look through

-- As before, with `context`.
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
        'context', p_job.context, 'error', p_job.error, 'usage', p_usage, 'cost_nano_usd', p_cost_nano_usd,
        'metadata', p_job.metadata)
$$;

-- As before, with `context`.
CREATE OR REPLACE FUNCTION insert_ended_job(p_tenant text, p_turn jsonb) RETURNS jobs
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_job jobs;
BEGIN
    INSERT INTO jobs (
        tenant_id, job_id, run, state, merged_into, agent, queue, conversation_id, user_id, domain, feature, metadata,
        attempts, reply, incomplete, degraded, cache, context, error, created_at, started_at, finished_at)
    SELECT
        p_tenant, t.job_id, t.run, t.state, t.merged_into, t.agent, t.queue, t.conversation_id, t.user_id, t.domain,
        t.feature, coalesce(t.metadata, '{}'), t.attempts, t.reply, t.incomplete, t.degraded, t.cache, t.context,
        t.error, from_unix_us(t.created_us), from_unix_us(t.started_us), from_unix_us(t.finished_us)
    FROM jsonb_to_record(p_turn) AS t(
        job_id uuid, run integer, state text, merged_into uuid, agent text, queue text, conversation_id text,
        user_id text, domain text, feature text, metadata jsonb, attempts integer, reply text, incomplete text,
        degraded text, cache text, context jsonb, error jsonb, created_us bigint, started_us bigint,
        finished_us bigint, claim bigint)
    WHERE NOT EXISTS (
        SELECT FROM job_claims c
        WHERE c.tenant_id = p_tenant AND c.job_id = t.job_id AND c.run = t.run AND c.claim > t.claim)
    ON CONFLICT (tenant_id, job_id, run) DO NOTHING
    RETURNING * INTO v_job;
    RETURN v_job;
END
$$;

-- The plain turns of one tenant, which must be set; no two of one conversation. Those that lost to somebody else are left
-- out: `commit_turn` knows what to do with them. `is_theirs` is false where the conversation belongs to another user; the
-- record is NULL where the books know more of the job than was told here. Locks are taken in the order of 0005, and in the
-- order of the keys, so that joined commits wait for each other but never deadlock.
CREATE FUNCTION commit_plain_turns(p_tenant text, p_turns jsonb)
RETURNS TABLE (job_id uuid, is_theirs boolean, record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT t.*, t.degraded IS NULL AS answers
        FROM jsonb_to_recordset(p_turns) AS t(
            job_id uuid, agent text, queue text, conversation_id text, user_id text, domain text, feature text,
            metadata jsonb, attempts integer, reply text, incomplete text, degraded text, cache text, context jsonb,
            message text, asked jsonb, memory boolean, claim bigint, created_us bigint, started_us bigint,
            finished_us bigint, calls jsonb)),
    won AS (
        INSERT INTO jobs (
            tenant_id, job_id, run, state, agent, queue, conversation_id, user_id, domain, feature, metadata, attempts,
            reply, incomplete, degraded, cache, context, created_at, started_at, finished_at)
        SELECT
            p_tenant, t.job_id, 1, 'succeeded', t.agent, t.queue, t.conversation_id, t.user_id, t.domain, t.feature,
            coalesce(t.metadata, '{}'), t.attempts, t.reply, t.incomplete, t.degraded, t.cache,
            t.context, from_unix_us(t.created_us), from_unix_us(t.started_us), from_unix_us(t.finished_us)
        FROM given AS t
        WHERE NOT EXISTS (
            SELECT FROM job_claims AS c
            WHERE c.tenant_id = p_tenant AND c.job_id = t.job_id AND c.run = 1 AND c.claim > t.claim)
        ORDER BY t.job_id
        ON CONFLICT (tenant_id, job_id, run) DO NOTHING
        RETURNING *),
    places AS (
        INSERT INTO conversations AS c (
            tenant_id, conversation_id, user_id, next_seq, next_delivery, created_at, updated_at)
        SELECT p_tenant, conversation_id, user_id, 2 + (degraded IS NULL)::integer, 1, created_at, finished_at
        FROM won ORDER BY conversation_id
        ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET
            user_id = coalesce(c.user_id, excluded.user_id),
            next_seq = c.next_seq + excluded.next_seq - 1,
            updated_at = greatest(c.updated_at, excluded.updated_at)
        WHERE c.user_id IS NULL OR excluded.user_id IS NULL OR c.user_id = excluded.user_id
        RETURNING conversation_id, next_seq),
    known AS (
        INSERT INTO users (tenant_id, user_id, created_at)
        SELECT p_tenant, user_id, min(created_at) FROM won WHERE user_id IS NOT NULL GROUP BY user_id ORDER BY user_id
        ON CONFLICT (tenant_id, user_id) DO NOTHING),
    said AS (
        INSERT INTO messages (tenant_id, conversation_id, seq, message_id, job_id, role, agent, body, created_at, asked)
        SELECT p_tenant, t.conversation_id, places.next_seq - t.answers::integer - 1 + line.place, uuid7(), t.job_id,
            line.role, t.agent, CASE line.place WHEN 0 THEN t.message ELSE t.reply END,
            from_unix_us(CASE line.place WHEN 0 THEN t.created_us ELSE t.finished_us END),
            CASE line.place WHEN 0 THEN t.asked END
        FROM given AS t JOIN won USING (job_id) JOIN places ON places.conversation_id = t.conversation_id
            JOIN (VALUES (0, 'user'), (1, 'assistant')) AS line(place, role) ON line.place = 0 OR t.answers
        ORDER BY t.job_id, line.place
        ON CONFLICT (tenant_id, job_id, role) DO NOTHING  -- the job has said it before
        RETURNING job_id, message_id, seq),
    remembered AS (
        INSERT INTO memory_outbox (tenant_id, user_id, conversation_id, job_id, message_ids)
        SELECT p_tenant, t.user_id, t.conversation_id, t.job_id, array_agg(said.message_id ORDER BY said.seq)
        FROM given AS t JOIN said USING (job_id) WHERE t.memory GROUP BY t.user_id, t.conversation_id, t.job_id),
    new_calls AS (
        INSERT INTO llm_calls (
            call_id, tenant_id, job_id, run, attempt, kind, agent, conversation_id, user_id, domain, feature,
            provider, model, model_used, status, error_code, estimated,
            input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
            cost_nano_usd, saved_nano_usd, unit_prices, price_version, latency_ms, ttft_ms, request_id, raw_usage,
            started_at)
        SELECT
            c.call_id, p_tenant, t.job_id, 1, c.attempt, coalesce(c.kind, 'chat'), t.agent, t.conversation_id,
            t.user_id, t.domain, t.feature, c.provider, c.model, c.model_used, c.status, c.error_code,
            coalesce(c.estimated, false), coalesce(c.input_tokens, 0), coalesce(c.output_tokens, 0),
            coalesce(c.cached_tokens, 0), coalesce(c.cache_write_tokens, 0), coalesce(c.reasoning_tokens, 0),
            c.cost_nano_usd, coalesce(c.saved_nano_usd, 0), coalesce(c.unit_prices, '{}'), c.price_version,
            c.latency_ms, c.ttft_ms, c.request_id, coalesce(c.raw_usage, '{}'), from_unix_us(c.started_us)
        FROM given AS t JOIN won USING (job_id),
            jsonb_to_recordset(t.calls) AS c(
                call_id uuid, attempt integer, kind text, provider text, model text, model_used text, status text,
                error_code text, estimated boolean, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
                cache_write_tokens bigint, reasoning_tokens bigint, cost_nano_usd bigint, saved_nano_usd bigint,
                unit_prices jsonb, price_version text, latency_ms double precision, ttft_ms double precision,
                request_id text, raw_usage jsonb, started_us bigint)
        ORDER BY c.call_id
        ON CONFLICT (call_id) DO NOTHING
        RETURNING *),
    spent AS (
        SELECT job_id, count(*) AS calls, sum(cost_nano_usd)::bigint AS cost_nano_usd, jsonb_build_object(
            'input_tokens', sum(input_tokens), 'output_tokens', sum(output_tokens),
            'cached_tokens', sum(cached_tokens), 'cache_write_tokens', sum(cache_write_tokens),
            'reasoning_tokens', sum(reasoning_tokens)) AS usage
        FROM new_calls GROUP BY job_id)
    SELECT won.job_id, places.conversation_id IS NOT NULL,
        CASE WHEN coalesce(spent.calls, 0) = jsonb_array_length(t.calls) THEN
            job_record_from(won, won.attempts, spent.usage, coalesce(spent.cost_nano_usd, 0)) END
    FROM won JOIN given AS t USING (job_id) LEFT JOIN places ON places.conversation_id = won.conversation_id
        LEFT JOIN spent USING (job_id);
END
$$;

-- Plain turns of many tenants, all or none: p_turns[n] is a JSON array of those of p_tenants[n]. The record of each comes
-- back, as `commit_turn` would return it. Whoever waits for a lock would make all the others wait: then none is committed,
-- and the caller commits each by itself.
CREATE FUNCTION commit_turns(p_tenants text[], p_turns jsonb[]) RETURNS TABLE (job_id uuid, record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp SET lock_timeout = '250ms' AS $$
#variable_conflict use_column
DECLARE
    v_tenant text;
    v_turns jsonb;
    v_won uuid[];
    v_end record;
BEGIN
    FOR v_tenant, v_turns IN SELECT * FROM unnest(p_tenants, p_turns) LOOP
        PERFORM set_config('switchboard.tenant', v_tenant, true);
        v_won := '{}';
        IF NOT EXISTS (SELECT FROM endpoints_for(v_tenant, 'job.succeeded')) THEN
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
