-- A turn's two statements again, cheaper; what they write and answer is as before.
--
-- Nearly every turn is a first attempt that takes no other message in and owes no event. Such a one now asks for nothing
-- it can know: its record is put together from the rows it has written, and nobody can have registered a claim, or
-- posted a call, before it.

-- No query asks for it, every turn wrote it, and a planner without statistics mistook it for the primary key's equal:
-- then every turn read all jobs of its tenant.
DROP INDEX jobs_finished;

-- The record of an ended job as callers see it (shared.jobs.JobRecord), from its row and what the books say of it.
CREATE FUNCTION job_record_from(p_job jobs, p_attempts bigint, p_usage jsonb, p_cost_nano_usd bigint) RETURNS jsonb
LANGUAGE sql STABLE AS $$  -- no search_path of its own: then it can be inlined
    SELECT jsonb_build_object(
        'id', p_job.job_id, 'tenant', p_job.tenant_id, 'agent', p_job.agent,
        'conversation_id', p_job.conversation_id, 'user_id', p_job.user_id, 'state', p_job.state,
        'merged_into', p_job.merged_into,
        'created_us', to_unix_us(p_job.created_at), 'started_us', to_unix_us(p_job.started_at),
        'finished_us', to_unix_us(p_job.finished_at), 'run', p_job.run, 'attempts', p_attempts, 'position', NULL,
        'reply', p_job.reply, 'incomplete', p_job.incomplete, 'error', p_job.error, 'usage', p_usage,
        'cost_nano_usd', p_cost_nano_usd, 'metadata', p_job.metadata)
$$;

-- Usage, cost and attempts are those of all runs, summed from the books; p_run NULL takes the latest run. A merged job
-- shows what became of the one that answered for it; its own cost is nothing. The tenant must be set.
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

-- Messages of a conversation that is not there need not be looked for.
CREATE OR REPLACE FUNCTION turn_context(
    p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer,
    OUT ended jsonb, OUT conversation_user text, OUT history jsonb, OUT settings jsonb, OUT tenant_known boolean)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_begun boolean;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    ended := job_record_of(p_tenant, p_job, p_run);
    SELECT c.user_id, c.conversation_id IS NOT NULL, coalesce(t.settings, '{}'),
        t.tenant_id IS NOT NULL AND t.disabled_at IS NULL
    INTO conversation_user, v_begun, settings, tenant_known
    FROM (SELECT) AS always
        LEFT JOIN conversations c ON c.tenant_id = p_tenant AND c.conversation_id = p_conversation
        LEFT JOIN tenants t ON t.tenant_id = p_tenant;
    history := '[]';
    IF v_begun AND p_history > 0 THEN
        history := recent_messages(p_tenant, p_job, p_run, p_conversation, p_history);
    END IF;
END
$$;

-- The one terminal row of (job, run), or NULLs: there was one already, or a later `claim` has taken the job over (one
-- that is not committed yet is not seen: then this end stands, and the taker adopts it at its own). A concurrent end of
-- the same run waits here. An end without a `claim` (never started, or by an operator) is not fenced.
DROP FUNCTION insert_ended_job(text, jsonb);
CREATE FUNCTION insert_ended_job(p_tenant text, p_turn jsonb) RETURNS jobs
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_job jobs;
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
        error jsonb, created_us bigint, started_us bigint, finished_us bigint, claim bigint)
    WHERE NOT EXISTS (
        SELECT FROM job_claims c
        WHERE c.tenant_id = p_tenant AND c.job_id = t.job_id AND c.run = t.run AND c.claim > t.claim)
    ON CONFLICT (tenant_id, job_id, run) DO NOTHING
    RETURNING * INTO v_job;
    RETURN v_job;
END
$$;

-- As before, and says what the added rows come to: `usage` is NULL when there were none.
DROP FUNCTION add_llm_calls(text, jsonb, jsonb);
CREATE FUNCTION add_llm_calls(
    p_tenant text, p_head jsonb, p_calls jsonb, OUT added bigint, OUT usage jsonb, OUT cost_nano_usd bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    WITH new AS (
        INSERT INTO llm_calls (
            call_id, tenant_id, job_id, run, attempt, kind, agent, conversation_id, user_id, domain, feature,
            provider, model, model_used, status, error_code, estimated,
            input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
            cost_nano_usd, unit_prices, price_version, latency_ms, ttft_ms, request_id, raw_usage, started_at)
        SELECT
            c.call_id, p_tenant, c.job_id, c.run, c.attempt, coalesce(c.kind, 'chat'), c.agent, c.conversation_id,
            c.user_id, c.domain, c.feature, c.provider, c.model, c.model_used, c.status, c.error_code,
            coalesce(c.estimated, false), coalesce(c.input_tokens, 0), coalesce(c.output_tokens, 0),
            coalesce(c.cached_tokens, 0), coalesce(c.cache_write_tokens, 0), coalesce(c.reasoning_tokens, 0),
            c.cost_nano_usd, coalesce(c.unit_prices, '{}'), c.price_version, c.latency_ms, c.ttft_ms, c.request_id,
            coalesce(c.raw_usage, '{}'), from_unix_us(c.started_us)
        FROM jsonb_array_elements(p_calls) AS given,
            jsonb_to_record(p_head || given) AS c(
                call_id uuid, job_id uuid, run integer, attempt integer, kind text, agent text, conversation_id text,
                user_id text, domain text, feature text, provider text, model text, model_used text, status text,
                error_code text, estimated boolean, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
                cache_write_tokens bigint, reasoning_tokens bigint, cost_nano_usd bigint, unit_prices jsonb,
                price_version text, latency_ms double precision, ttft_ms double precision, request_id text,
                raw_usage jsonb, started_us bigint)
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

CREATE OR REPLACE FUNCTION end_attempt(p_tenant text, p_calls jsonb) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (add_llm_calls(p_tenant, '{}', p_calls)).added;
END
$$;

-- What was said, from p_seq on: the p_before messages taken in, the user's own and the reply; and memory's share of it.
DROP FUNCTION write_messages(text, jsonb, integer, boolean, bigint);
CREATE FUNCTION write_messages(p_job jobs, p_turn jsonb, p_before integer, p_asks boolean, p_seq bigint)
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
            (p_asks::integer, 'assistant', p_job.reply, p_job.finished_at, p_job.reply IS NOT NULL)
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

-- The winner's part in its conversation; returns the place of its first event. A rejected message never was part of the
-- conversation. Another user's conversation refuses a success (SQLSTATE SB001); any other end is booked without a
-- word in it, so that such a job can end at all. p_taken_in is NULL for most.
DROP FUNCTION write_conversation(text, jsonb);
CREATE FUNCTION write_conversation(p_job jobs, p_turn jsonb, p_taken_in jsonb) RETURNS bigint
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
            v_before + v_asks::integer + (p_job.reply IS NOT NULL)::integer, v_owed, p_job.created_at, p_job.finished_at);
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

-- Events owed to callers, from p_sequence on: for the jobs taken in, then for the turn itself.
CREATE FUNCTION insert_deliveries(
    p_tenant text, p_turn jsonb, p_taken_in jsonb, p_sequence bigint, p_record jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_before integer := 0;
BEGIN
    IF p_taken_in IS NOT NULL THEN
        SELECT count(insert_delivery(
            p_tenant, job, p_sequence + place, job_record_of(p_tenant, (job->>'job_id')::uuid, 1)))
        INTO v_before FROM owed_for_taken_in(p_turn);
    END IF;
    PERFORM insert_delivery(p_tenant, p_turn, p_sequence + v_before, p_record);
END
$$;

-- Ends one run of a job, once. The first to come writes everything, for the jobs it took in too; whoever comes second
-- writes nothing but calls the books do not have (they were paid for) and is given the winner's record to adopt.
-- `record` is NULL while a job that was taken over has no end. Safe to repeat after a lost reply. Relies on READ
-- COMMITTED: after waiting for the winner, the next statement sees its rows.
CREATE OR REPLACE FUNCTION commit_turn(p_tenant text, p_turn jsonb, OUT won boolean, OUT record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_taken_in jsonb := nullif(nullif(p_turn->'taken_in', 'null'), '[]');
    v_calls jsonb := coalesce(nullif(p_turn->'calls', 'null'), '[]');
    -- This job was never claimed before: no other claim is registered, and the books know no call of it but these.
    v_first boolean := coalesce(p_turn->>'run' = '1' AND p_turn->>'claim' = p_turn->>'started_us', false);
    v_job jobs;
    v_sequence bigint;
    v_new record;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
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
    IF v_sequence IS NOT NULL AND (v_taken_in IS NOT NULL OR p_turn->>'callback_url' IS NOT NULL) THEN
        PERFORM insert_deliveries(p_tenant, p_turn, v_taken_in, v_sequence, record);
    END IF;
END
$$;
