-- Kept answers in the books: a question that was answered before is a row `cached` that costs nothing and says what the
-- answer had cost when it was made; a job shows that its reply was there already.

-- Constant defaults and checks of new rows only: no row is read or rewritten, and every partition gets the column.
ALTER TABLE llm_calls ADD COLUMN saved_nano_usd bigint NOT NULL DEFAULT 0;
ALTER TABLE llm_calls ADD CONSTRAINT llm_calls_saved_nano_usd_check CHECK (saved_nano_usd >= 0) NOT VALID;
ALTER TABLE jobs ADD COLUMN cache text;
ALTER TABLE jobs ADD CONSTRAINT jobs_cache_check CHECK (cache IN ('exact')) NOT VALID;

-- As before, with what was saved.
CREATE OR REPLACE FUNCTION add_llm_calls(
    p_tenant text, p_head jsonb, p_calls jsonb, OUT added bigint, OUT usage jsonb, OUT cost_nano_usd bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    WITH new AS (
        INSERT INTO llm_calls (
            call_id, tenant_id, job_id, run, attempt, kind, agent, conversation_id, user_id, domain, feature,
            provider, model, model_used, status, error_code, estimated,
            input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
            cost_nano_usd, saved_nano_usd, unit_prices, price_version, latency_ms, ttft_ms, request_id, raw_usage,
            started_at)
        SELECT
            c.call_id, p_tenant, c.job_id, c.run, c.attempt, coalesce(c.kind, 'chat'), c.agent, c.conversation_id,
            c.user_id, c.domain, c.feature, c.provider, c.model, c.model_used, c.status, c.error_code,
            coalesce(c.estimated, false), coalesce(c.input_tokens, 0), coalesce(c.output_tokens, 0),
            coalesce(c.cached_tokens, 0), coalesce(c.cache_write_tokens, 0), coalesce(c.reasoning_tokens, 0),
            c.cost_nano_usd, coalesce(c.saved_nano_usd, 0), coalesce(c.unit_prices, '{}'), c.price_version,
            c.latency_ms, c.ttft_ms, c.request_id, coalesce(c.raw_usage, '{}'), from_unix_us(c.started_us)
        FROM jsonb_array_elements(p_calls) AS given,
            jsonb_to_record(p_head || given) AS c(
                call_id uuid, job_id uuid, run integer, attempt integer, kind text, agent text, conversation_id text,
                user_id text, domain text, feature text, provider text, model text, model_used text, status text,
                error_code text, estimated boolean, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
                cache_write_tokens bigint, reasoning_tokens bigint, cost_nano_usd bigint, saved_nano_usd bigint,
                unit_prices jsonb, price_version text, latency_ms double precision, ttft_ms double precision,
                request_id text, raw_usage jsonb, started_us bigint)
        ORDER BY c.call_id
        ON CONFLICT (call_id) DO NOTHING
        RETURNING *)
    SELECT count(*), coalesce(sum(new.cost_nano_usd), 0), CASE WHEN count(*) > 0 THEN jsonb_build_object(
            'input_tokens', sum(input_tokens), 'output_tokens', sum(output_tokens),
            'cached_tokens', sum(cached_tokens), 'cache_write_tokens', sum(cache_write_tokens),
            'reasoning_tokens', sum(reasoning_tokens)) END
    INTO added, cost_nano_usd, usage FROM new;
END
$$;

-- As before, with `cache`.
CREATE OR REPLACE FUNCTION job_record_from(
    p_job jobs, p_attempts bigint, p_usage jsonb, p_cost_nano_usd bigint) RETURNS jsonb
LANGUAGE sql STABLE AS $$  -- no search_path of its own: then it can be inlined
    SELECT jsonb_build_object(
        'id', p_job.job_id, 'tenant', p_job.tenant_id, 'agent', p_job.agent,
        'conversation_id', p_job.conversation_id, 'user_id', p_job.user_id, 'state', p_job.state,
        'merged_into', p_job.merged_into,
        'created_us', to_unix_us(p_job.created_at), 'started_us', to_unix_us(p_job.started_at),
        'finished_us', to_unix_us(p_job.finished_at), 'run', p_job.run, 'attempts', p_attempts, 'position', NULL,
        'reply', p_job.reply, 'incomplete', p_job.incomplete, 'cache', p_job.cache, 'error', p_job.error,
        'usage', p_usage, 'cost_nano_usd', p_cost_nano_usd, 'metadata', p_job.metadata)
$$;

CREATE OR REPLACE FUNCTION insert_ended_job(p_tenant text, p_turn jsonb) RETURNS jobs
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_job jobs;
BEGIN
    INSERT INTO jobs (
        tenant_id, job_id, run, state, merged_into, agent, queue, conversation_id, user_id, domain, feature, metadata,
        attempts, reply, incomplete, cache, error, created_at, started_at, finished_at)
    SELECT
        p_tenant, t.job_id, t.run, t.state, t.merged_into, t.agent, t.queue, t.conversation_id, t.user_id, t.domain,
        t.feature, coalesce(t.metadata, '{}'), t.attempts, t.reply, t.incomplete, t.cache, t.error,
        from_unix_us(t.created_us), from_unix_us(t.started_us), from_unix_us(t.finished_us)
    FROM jsonb_to_record(p_turn) AS t(
        job_id uuid, run integer, state text, merged_into uuid, agent text, queue text, conversation_id text,
        user_id text, domain text, feature text, metadata jsonb, attempts integer, reply text, incomplete text,
        cache text, error jsonb, created_us bigint, started_us bigint, finished_us bigint, claim bigint)
    WHERE NOT EXISTS (
        SELECT FROM job_claims c
        WHERE c.tenant_id = p_tenant AND c.job_id = t.job_id AND c.run = t.run AND c.claim > t.claim)
    ON CONFLICT (tenant_id, job_id, run) DO NOTHING
    RETURNING * INTO v_job;
    RETURN v_job;
END
$$;

-- As before, with what was saved; a column can only be added at the end.
CREATE OR REPLACE VIEW usage_calls WITH (security_invoker = true) AS
SELECT
    c.call_id, c.job_id, c.run, c.attempt, c.tenant_id AS tenant, c.user_id AS "user", c.agent,
    c.conversation_id AS conversation, c.domain, c.feature, c.kind, c.provider, c.model, c.status, c.estimated,
    c.input_tokens, c.output_tokens, c.cached_tokens, c.cache_write_tokens, c.reasoning_tokens,
    c.cost_nano_usd, c.usd,
    date_trunc('hour', m.at) AS hour, date_trunc('day', m.at) AS day,
    date_trunc('week', m.at) AS week, date_trunc('month', m.at) AS month, c.saved_nano_usd
FROM llm_calls AS c CROSS JOIN LATERAL (SELECT uuid7_moment(c.call_id) AT TIME ZONE 'UTC' AS at) AS m;

-- As before, with what was saved. A kept answer is a fate of its own: nothing failed.
CREATE OR REPLACE FUNCTION usage_sums() RETURNS TABLE (name text, measure text)
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT * FROM (VALUES
        ('calls', 'count(*)'),
        ('input_tokens', 'sum(input_tokens)'),
        ('output_tokens', 'sum(output_tokens)'),
        ('cached_tokens', 'sum(cached_tokens)'),
        ('cache_write_tokens', 'sum(cache_write_tokens)'),
        ('reasoning_tokens', 'sum(reasoning_tokens)'),
        ('cost_nano_usd', 'sum(cost_nano_usd)'),
        ('saved_nano_usd', 'sum(saved_nano_usd)'),
        ('cached_calls', 'count(*) FILTER (WHERE status = ''cached'')')) AS given(name, measure)
    UNION ALL
    SELECT fate || '_' || what, measure || ' FILTER (WHERE ' || condition || ')' FROM (VALUES
        ('ok', 'status = ''ok'''),
        ('failed', 'status NOT IN (''ok'', ''aborted'', ''lost'', ''cached'')'),
        ('aborted', 'status = ''aborted'''),
        ('lost', 'status = ''lost'''),
        ('estimated', 'estimated')) AS fates(fate, condition),
        (VALUES ('calls', 'count(*)'), ('cost_nano_usd', 'sum(cost_nano_usd)')) AS measures(what, measure)
$$;
