-- A turn's two statements: `turn_context` before the model is asked, `commit_turn` (or `end_job`) when it is over.
--
-- One call = one transaction = one round trip. Locks are taken in one order, jobs, conversations, users, messages,
-- llm_calls, so that turns wait for each other but never deadlock.

-- The record of a job as callers see it (shared.jobs.JobRecord). Usage, cost and attempts are those of all its runs,
-- summed from the books; p_run NULL takes the latest run. The tenant must be set.
CREATE FUNCTION job_record_of(p_tenant text, p_job uuid, p_run integer) RETURNS jsonb
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
        'created_us', to_unix_us(v_job.created_at), 'started_us', to_unix_us(v_job.started_at),
        'finished_us', to_unix_us(v_job.finished_at), 'run', v_job.run, 'attempts', v_attempts, 'position', NULL,
        'reply', v_job.reply, 'incomplete', v_job.incomplete, 'error', v_job.error, 'usage', v_usage,
        'cost_nano_usd', v_cost, 'metadata', v_job.metadata);
END
$$;

-- The latest run's record of an ended job; NULL when the books do not know it.
CREATE FUNCTION job_record(p_tenant text, p_job uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN job_record_of(p_tenant, p_job, NULL);
END
$$;

-- The last p_history messages, oldest first, without those of p_job: a second run must not see its own question twice.
-- Starts with a user's message when there is one, as providers want it.
CREATE FUNCTION recent_messages(p_tenant text, p_job uuid, p_conversation text, p_history integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (
        WITH recent AS (
            SELECT seq, role, body FROM messages
            WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND job_id <> p_job
                AND role IN ('user', 'assistant')
            ORDER BY seq DESC LIMIT greatest(p_history, 0))
        SELECT coalesce(jsonb_agg(jsonb_build_object('role', role, 'content', body) ORDER BY seq), '[]')
        FROM recent WHERE seq >= coalesce((SELECT min(seq) FROM recent WHERE role = 'user'), 0));
END
$$;

-- All a worker needs to know before it answers. Always one row; `ended` is the record when this run is over already,
-- `tenant_known` is false for a tenant that does not exist or is disabled.
CREATE FUNCTION turn_context(
    p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer,
    OUT ended jsonb, OUT conversation_user text, OUT history jsonb, OUT settings jsonb, OUT tenant_known boolean)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    ended := job_record_of(p_tenant, p_job, p_run);
    SELECT c.user_id INTO conversation_user FROM conversations c
    WHERE c.tenant_id = p_tenant AND c.conversation_id = p_conversation;
    history := recent_messages(p_tenant, p_job, p_conversation, p_history);
    SELECT t.settings, t.disabled_at IS NULL INTO settings, tenant_known FROM tenants t WHERE t.tenant_id = p_tenant;
    settings := coalesce(settings, '{}');
    tenant_known := coalesce(tenant_known, false);
END
$$;

-- The one terminal row of (job, run); false when there was one. A concurrent end of the same run waits here.
CREATE FUNCTION insert_ended_job(p_tenant text, p_turn jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO jobs (
        tenant_id, job_id, run, state, agent, queue, conversation_id, user_id, domain, feature, metadata, attempts,
        reply, incomplete, error, created_at, started_at, finished_at)
    SELECT
        p_tenant, t.job_id, t.run, t.state, t.agent, t.queue, t.conversation_id, t.user_id, t.domain, t.feature,
        coalesce(t.metadata, '{}'), t.attempts, t.reply, t.incomplete, t.error,
        from_unix_us(t.created_us), from_unix_us(t.started_us), from_unix_us(t.finished_us)
    FROM jsonb_to_record(p_turn) AS t(
        job_id uuid, run integer, state text, agent text, queue text, conversation_id text, user_id text, domain text,
        feature text, metadata jsonb, attempts integer, reply text, incomplete text, error jsonb,
        created_us bigint, started_us bigint, finished_us bigint)
    ON CONFLICT (tenant_id, job_id, run) DO NOTHING;
    RETURN FOUND;
END
$$;

-- Gives p_messages places for messages and p_deliveries for events in a conversation, made and owned if need be.
-- Returns the first of each, or NULLs when the conversation belongs to another user. From here to the end of the
-- transaction the conversation is ours.
CREATE FUNCTION take_places(
    p_tenant text, p_conversation text, p_user text, p_messages integer, p_deliveries integer,
    p_created timestamptz, p_updated timestamptz, OUT first_seq bigint, OUT first_delivery bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO conversations AS c (
        tenant_id, conversation_id, user_id, next_seq, next_delivery, created_at, updated_at)
    VALUES (p_tenant, p_conversation, p_user, 1 + p_messages, 1 + p_deliveries, p_created, p_updated)
    ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET
        user_id = coalesce(c.user_id, excluded.user_id),
        next_seq = c.next_seq + p_messages,
        next_delivery = c.next_delivery + p_deliveries,
        updated_at = greatest(c.updated_at, excluded.updated_at)
    WHERE c.user_id IS NULL OR excluded.user_id IS NULL OR c.user_id = excluded.user_id
    RETURNING c.next_seq - p_messages, c.next_delivery - p_deliveries INTO first_seq, first_delivery;
END
$$;

-- One message of a job; NULL when the job has said it before.
CREATE FUNCTION add_message(p_tenant text, p_turn jsonb, p_role text, p_body text, p_seq bigint, p_at_us bigint)
RETURNS uuid LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_id uuid;
BEGIN
    INSERT INTO messages (tenant_id, conversation_id, seq, message_id, job_id, role, agent, body, created_at)
    VALUES (p_tenant, p_turn->>'conversation_id', p_seq, uuid7(), (p_turn->>'job_id')::uuid, p_role,
        p_turn->>'agent', p_body, from_unix_us(p_at_us))
    ON CONFLICT (tenant_id, job_id, role) DO NOTHING RETURNING message_id INTO v_id;
    RETURN v_id;
END
$$;

-- The user's message and the reply, from p_seq on, the user they belong to, and memory's share of them.
CREATE FUNCTION write_messages(p_tenant text, p_turn jsonb, p_asks boolean, p_seq bigint) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_ids uuid[] := '{}';
BEGIN
    IF p_turn->>'user_id' IS NOT NULL THEN
        INSERT INTO users (tenant_id, user_id, created_at)
        VALUES (p_tenant, p_turn->>'user_id', from_unix_us((p_turn->>'created_us')::bigint))
        ON CONFLICT (tenant_id, user_id) DO NOTHING;
    END IF;
    IF p_asks THEN
        v_ids := v_ids || add_message(
            p_tenant, p_turn, 'user', p_turn->>'message', p_seq, (p_turn->>'created_us')::bigint);
    END IF;
    IF p_turn->>'reply' IS NOT NULL THEN
        v_ids := v_ids || add_message(
            p_tenant, p_turn, 'assistant', p_turn->>'reply', p_seq + p_asks::integer, (p_turn->>'finished_us')::bigint);
    END IF;
    v_ids := array_remove(v_ids, NULL);
    IF (p_turn->>'memory')::boolean AND cardinality(v_ids) > 0 THEN
        INSERT INTO memory_outbox (tenant_id, user_id, conversation_id, job_id, message_ids)
        VALUES (p_tenant, p_turn->>'user_id', p_turn->>'conversation_id', (p_turn->>'job_id')::uuid, v_ids);
    END IF;
END
$$;

-- The winner's part in its conversation; returns the place of its delivery. A rejected message never was part of the
-- conversation. Another user's conversation refuses a success (SQLSTATE SB001); any other end is booked without a
-- word in it, so that such a job can end at all.
CREATE FUNCTION write_conversation(p_tenant text, p_turn jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    t record;
    v_asks boolean;
    v_seq bigint;
    v_delivery bigint;
BEGIN
    SELECT *, (callback_url IS NOT NULL)::integer AS deliveries INTO t FROM jsonb_to_record(p_turn) AS given(
        job_id uuid, run integer, state text, conversation_id text, user_id text, reply text, callback_url text,
        created_us bigint, finished_us bigint);
    IF t.state <> 'rejected' THEN
        -- An earlier run has asked already.
        v_asks := t.run = 1 OR NOT EXISTS (
            SELECT FROM messages WHERE tenant_id = p_tenant AND job_id = t.job_id AND role = 'user');
        SELECT * INTO v_seq, v_delivery FROM take_places(
            p_tenant, t.conversation_id, t.user_id, v_asks::integer + (t.reply IS NOT NULL)::integer, t.deliveries,
            from_unix_us(t.created_us), from_unix_us(t.finished_us));
    END IF;
    IF v_seq IS NOT NULL THEN
        PERFORM write_messages(p_tenant, p_turn, v_asks, v_seq);
    ELSIF t.state = 'succeeded' THEN
        RAISE EXCEPTION 'the conversation belongs to another user' USING ERRCODE = 'SB001';
    ELSIF t.deliveries > 0 THEN
        SELECT first_delivery INTO v_delivery FROM take_places(
            p_tenant, t.conversation_id, NULL, 0, t.deliveries, from_unix_us(t.created_us), from_unix_us(t.finished_us));
    END IF;
    RETURN v_delivery;
END
$$;

-- What an operator needs to look into an end nobody wanted, and to run the job again.
CREATE FUNCTION insert_dead_job(p_tenant text, p_turn jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO dead_jobs (
        tenant_id, job_id, run, state, agent, queue, conversation_id, user_id, payload, attempts, attempt_errors,
        error, traceback, created_at, started_at, finished_at)
    SELECT
        p_tenant, t.job_id, t.run, t.state, t.agent, t.queue, t.conversation_id, t.user_id, t.payload, t.attempts,
        coalesce(t.attempt_errors, '[]'), t.error, t.traceback,
        from_unix_us(t.created_us), from_unix_us(t.started_us), from_unix_us(t.finished_us)
    FROM jsonb_to_record(p_turn) AS t(
        job_id uuid, run integer, state text, agent text, queue text, conversation_id text, user_id text, payload jsonb,
        attempts integer, attempt_errors jsonb, error jsonb, traceback text,
        created_us bigint, started_us bigint, finished_us bigint)
    WHERE t.state IN ('dead', 'expired', 'rejected');
END
$$;

-- The event owed to the caller's callback URL; its body is the record as it stands after this transaction.
CREATE FUNCTION insert_delivery(p_tenant text, p_turn jsonb, p_sequence bigint, p_record jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF p_turn->>'callback_url' IS NOT NULL THEN
        INSERT INTO deliveries (tenant_id, conversation_id, job_id, run, url, event_type, sequence, body)
        VALUES (p_tenant, p_turn->>'conversation_id', (p_turn->>'job_id')::uuid, (p_turn->>'run')::integer,
            p_turn->>'callback_url', 'job.' || (p_turn->>'state'), p_sequence, p_record);
    END IF;
END
$$;

-- Ends one run of a job, once. The first to come writes everything; whoever comes second writes nothing but calls the
-- books do not have (they were paid for) and is given the winner's record to adopt. Safe to repeat after a lost reply.
-- Relies on READ COMMITTED: after waiting for the winner, the next statement sees its rows.
CREATE FUNCTION commit_turn(p_tenant text, p_turn jsonb, OUT won boolean, OUT record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_sequence bigint;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    won := insert_ended_job(p_tenant, p_turn);
    IF won THEN
        v_sequence := write_conversation(p_tenant, p_turn);
        PERFORM insert_dead_job(p_tenant, p_turn);
    END IF;
    PERFORM add_llm_calls(
        p_tenant,
        jsonb_build_object(
            'job_id', p_turn->'job_id', 'run', p_turn->'run', 'agent', p_turn->'agent',
            'conversation_id', p_turn->'conversation_id', 'user_id', p_turn->'user_id',
            'domain', p_turn->'domain', 'feature', p_turn->'feature'),
        coalesce(nullif(p_turn->'calls', 'null'), '[]'));
    record := job_record_of(p_tenant, (p_turn->>'job_id')::uuid, (p_turn->>'run')::integer);
    IF won THEN
        PERFORM insert_delivery(p_tenant, p_turn, v_sequence, record);
    END IF;
END
$$;

-- The same for a run that did not succeed; a success goes through commit_turn.
CREATE FUNCTION end_job(p_tenant text, p_end jsonb, OUT won boolean, OUT record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF p_end->>'state' = 'succeeded' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'a success is committed by commit_turn';
    END IF;
    SELECT * INTO won, record FROM commit_turn(p_tenant, p_end);
END
$$;
