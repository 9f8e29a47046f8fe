-- Requests in OpenAI's form: what was said along with a message, and responses that their callers do not want shown.
--
-- Messages that a caller gives along are part of what was asked in one turn, and of the history of those after it. They
-- stand in the row of the message they were given with: a job says each thing of its own once.

ALTER TABLE messages ADD COLUMN asked jsonb CHECK (jsonb_typeof(asked) = 'object');  -- shared.wire.Asked

CREATE TABLE forgotten_responses (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    forgotten_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, job_id)
);
SELECT protect_table('forgotten_responses');
REVOKE UPDATE, DELETE ON forgotten_responses FROM switchboard_app;

-- As before, with what was asked beside the message of a job that was taken in.
CREATE OR REPLACE FUNCTION add_message(
    p_tenant text, p_turn jsonb, p_role text, p_body text, p_seq bigint, p_at_us bigint)
RETURNS uuid LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_id uuid;
BEGIN
    INSERT INTO messages (tenant_id, conversation_id, seq, message_id, job_id, role, agent, body, created_at, asked)
    VALUES (p_tenant, p_turn->>'conversation_id', p_seq, uuid7(), (p_turn->>'job_id')::uuid, p_role,
        p_turn->>'agent', p_body, from_unix_us(p_at_us),
        CASE WHEN p_role = 'user' THEN nullif(p_turn->'asked', 'null') END)
    ON CONFLICT (tenant_id, job_id, role) DO NOTHING RETURNING message_id INTO v_id;
    RETURN v_id;
END
$$;

-- As before, with what was asked beside the turn's own message.
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
        INSERT INTO messages (tenant_id, conversation_id, seq, message_id, job_id, role, agent, body, created_at, asked)
        SELECT p_job.tenant_id, p_job.conversation_id, p_seq + p_before + said.place, uuid7(), p_job.job_id, said.role,
            p_job.agent, said.body, said.at, said.asked
        FROM (VALUES (0, 'user', p_turn->>'message', p_job.created_at, nullif(p_turn->'asked', 'null'), p_asks),
            (p_asks::integer, 'assistant', p_job.reply, p_job.finished_at, NULL,
                p_job.reply IS NOT NULL AND p_job.degraded IS NULL)
        ) AS said(place, role, body, at, asked, was) WHERE said.was
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

-- As before, and what was given along with a message comes before it. p_history counts these too.
CREATE OR REPLACE FUNCTION recent_messages(
    p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer)
RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (
        WITH recent AS (
            SELECT seq, role, body, asked FROM messages m
            WHERE tenant_id = p_tenant AND conversation_id = p_conversation AND job_id <> p_job
                AND role IN ('user', 'assistant')
                AND (p_run = 1 OR NOT EXISTS (
                    SELECT FROM jobs j
                    WHERE j.tenant_id = p_tenant AND j.job_id = m.job_id AND j.merged_into = p_job))
            ORDER BY seq DESC LIMIT greatest(p_history, 0)),
        said AS (
            SELECT seq, 1 + coalesce(jsonb_array_length(asked->'given'), 0) AS place, role, body FROM recent
            UNION ALL
            SELECT seq, given.place, given.item->>'role', given.item->>'content'
            FROM recent, jsonb_array_elements(asked->'given') WITH ORDINALITY AS given(item, place)
            ORDER BY seq DESC, place DESC LIMIT greatest(p_history, 0)),
        first AS (SELECT seq, place FROM said WHERE role = 'user' ORDER BY seq, place LIMIT 1)
        SELECT coalesce(
            jsonb_agg(jsonb_build_object('role', role, 'content', body) ORDER BY said.seq, said.place), '[]')
        FROM said LEFT JOIN first ON true
        WHERE first.seq IS NULL OR (said.seq, said.place) >= (first.seq, first.place));
END
$$;

-- An ended job as a response: its record, what was asked, and whether it is still to be shown; NULL when the books do not
-- know it.
CREATE FUNCTION response_record(p_tenant text, p_job uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN job_record_of(p_tenant, p_job, NULL) || jsonb_build_object(
        'asked', (SELECT asked - 'given' FROM messages WHERE tenant_id = p_tenant AND job_id = p_job AND role = 'user'),
        'forgotten', EXISTS (SELECT FROM forgotten_responses WHERE tenant_id = p_tenant AND job_id = p_job));
END
$$;

-- What was asked in an ended job, oldest first: what was given along, then the message itself. A rejected one was never
-- part of its conversation; its payload has it. NULL when the books do not know it.
CREATE FUNCTION response_input(p_tenant text, p_job uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_input jsonb;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT coalesce(asked->'given', '[]') || jsonb_build_object('role', 'user', 'content', body) INTO v_input
    FROM messages WHERE tenant_id = p_tenant AND job_id = p_job AND role = 'user';
    IF v_input IS NULL THEN
        SELECT coalesce(payload#>'{asked,given}', '[]')
            || jsonb_build_object('role', 'user', 'content', payload->>'message')
        INTO v_input FROM dead_jobs
        WHERE tenant_id = p_tenant AND job_id = p_job AND jsonb_typeof(payload) = 'object' ORDER BY run DESC LIMIT 1;
    END IF;
    RETURN v_input;
END
$$;

-- Repeating it changes nothing.
CREATE FUNCTION forget_response(p_tenant text, p_job uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO forgotten_responses (tenant_id, job_id) VALUES (p_tenant, p_job) ON CONFLICT DO NOTHING;
END
$$;
