-- Operating the dead-letter store: what became of each dead run, finding them by filter, retry and discard.
--
-- A dead run is `open` until an operator retries or discards it. The row stays in both cases, with who and when, and
-- with the payload a retry changed: the books show what was asked first and what was asked then. Every function takes
-- the tenant; NULL means all of them, which row-level security lets only switchboard_ops see.

-- `operator` reaches the dead jobs and queues of every tenant, `admin` those of its own.
ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_scopes_check,
    ADD CONSTRAINT api_keys_scopes CHECK (
        cardinality(scopes) > 0 AND scopes <@ ARRAY['chat', 'admin', 'operator']);

ALTER TABLE dead_jobs
    ADD COLUMN error_code text GENERATED ALWAYS AS (error->>'code') STORED,
    ADD COLUMN disposition text NOT NULL DEFAULT 'open' CHECK (disposition IN ('open', 'retried', 'discarded')),
    ADD COLUMN resolved_at timestamptz,
    ADD COLUMN resolved_by text,
    ADD COLUMN retry_run integer,   -- the run that a retry started
    ADD COLUMN retry_position text CHECK (retry_position IN ('end', 'in_place')),
    ADD COLUMN retry_payload jsonb, -- what that run was given, when it is not `payload`
    ADD CONSTRAINT resolved_says_when_and_by_whom CHECK (
        (disposition = 'open') = (resolved_at IS NULL) AND (resolved_at IS NULL) = (resolved_by IS NULL)),
    ADD CONSTRAINT retried_names_the_next_run CHECK (
        (disposition = 'retried') = (retry_run IS NOT NULL AND retry_run > run AND retry_position IS NOT NULL)),
    ADD CONSTRAINT only_a_retry_changes_the_payload CHECK (retry_payload IS NULL OR disposition = 'retried');
-- Row-level security still decides whose rows these are.
GRANT UPDATE (disposition, resolved_at, resolved_by, retry_run, retry_position, retry_payload)
    ON dead_jobs TO switchboard_app;

-- Lists go from the newest end backwards; bulk retries through the open ones in the order they were accepted (UUIDv7).
CREATE INDEX dead_jobs_job ON dead_jobs (job_id, run);
CREATE INDEX dead_jobs_open ON dead_jobs (finished_at, job_id, run) WHERE disposition = 'open';
CREATE INDEX dead_jobs_open_jobs ON dead_jobs (job_id) WHERE disposition = 'open';
CREATE INDEX dead_jobs_tenant ON dead_jobs (tenant_id, finished_at, job_id, run);
CREATE INDEX dead_jobs_error ON dead_jobs (tenant_id, error_code, finished_at);
CREATE INDEX dead_jobs_agent ON dead_jobs (tenant_id, agent, finished_at);
DROP INDEX dead_jobs_finished;
CREATE INDEX dead_jobs_finished ON dead_jobs (finished_at, job_id, run);

-- Whether a later run of the job has ended: then this one needs nobody's attention, whether or not the retry that
-- started the later one lived long enough to say so in its row.
CREATE FUNCTION dead_job_superseded(d dead_jobs) RETURNS boolean
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM jobs WHERE tenant_id = d.tenant_id AND job_id = d.job_id AND run > d.run)
$$;

CREATE FUNCTION dead_job_summary(d dead_jobs) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'tenant', d.tenant_id, 'job_id', d.job_id, 'run', d.run, 'state', d.state, 'agent', d.agent,
        'queue', d.queue, 'conversation_id', d.conversation_id, 'user_id', d.user_id, 'attempts', d.attempts,
        'error', d.error, 'created_us', to_unix_us(d.created_at), 'started_us', to_unix_us(d.started_at),
        'finished_us', to_unix_us(d.finished_at),
        'disposition', CASE WHEN d.disposition = 'open' AND dead_job_superseded(d) THEN 'retried' ELSE d.disposition END,
        'resolved_us', to_unix_us(d.resolved_at), 'resolved_by', d.resolved_by, 'retry_run', d.retry_run,
        'retry_position', d.retry_position)
$$;

-- The condition of a filter, for queries that have it as $1: {tenant, agent, error_code, state, disposition,
-- finished_after_us, finished_before_us}, each optional. Only text of ours: values stay in $1. Written out per filter
-- so that the planner sees the literal that a partial index is for.
CREATE FUNCTION dead_jobs_condition(p_filter jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT concat_ws(' AND ', 'true',
        CASE WHEN p_filter ? 'tenant' THEN 'd.tenant_id = $1->>''tenant''' END,
        CASE WHEN p_filter ? 'agent' THEN 'd.agent = $1->>''agent''' END,
        CASE WHEN p_filter ? 'error_code' THEN 'd.error_code = $1->>''error_code''' END,
        CASE WHEN p_filter ? 'state' THEN 'd.state = $1->>''state''' END,
        CASE WHEN p_filter ? 'finished_after_us'
            THEN 'd.finished_at > from_unix_us(($1->>''finished_after_us'')::bigint)' END,
        CASE WHEN p_filter ? 'finished_before_us'
            THEN 'd.finished_at < from_unix_us(($1->>''finished_before_us'')::bigint)' END,
        CASE p_filter->>'disposition'
            WHEN 'open' THEN 'd.disposition = ''open'' AND NOT dead_job_superseded(d)'
            WHEN 'retried' THEN '(d.disposition = ''retried'' OR d.disposition = ''open'' AND dead_job_superseded(d))'
            WHEN 'discarded' THEN 'd.disposition = ''discarded''' END)
$$;

-- A page of summaries, the newest end first, after the row {finished_us, job_id, run} when p_after names one.
CREATE FUNCTION list_dead_jobs(p_filter jsonb, p_after jsonb, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_filter->>'tenant', true);
    RETURN QUERY EXECUTE
        'SELECT dead_job_summary(d) FROM dead_jobs d WHERE ' || dead_jobs_condition(p_filter)
        || CASE WHEN p_after IS NOT NULL THEN
            ' AND (d.finished_at, d.job_id, d.run) < '
            '(from_unix_us(($2->>''finished_us'')::bigint), ($2->>''job_id'')::uuid, ($2->>''run'')::integer)' ELSE '' END
        || ' ORDER BY d.finished_at DESC, d.job_id DESC, d.run DESC LIMIT $3'
    USING p_filter, p_after, p_limit;
END
$$;

-- Jobs to retry in bulk, as they were accepted, after p_after when it is given: conversations keep their order.
CREATE FUNCTION open_dead_jobs(p_filter jsonb, p_after uuid, p_limit integer) RETURNS TABLE (tenant text, job_id uuid)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_filter->>'tenant', true);
    RETURN QUERY EXECUTE
        'SELECT d.tenant_id, d.job_id FROM dead_jobs d WHERE ' || dead_jobs_condition(p_filter || '{"disposition": "open"}')
        || CASE WHEN p_after IS NOT NULL THEN ' AND d.job_id > $2' ELSE '' END
        || ' ORDER BY d.job_id LIMIT $3'
    USING p_filter, p_after, p_limit;
END
$$;

CREATE FUNCTION count_dead_jobs(p_filter jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM set_config('switchboard.tenant', p_filter->>'tenant', true);
    EXECUTE 'SELECT count(*) FROM dead_jobs d WHERE ' || dead_jobs_condition(p_filter) INTO v_count USING p_filter;
    RETURN v_count;
END
$$;

-- The latest dead run of a job, locked until the transaction ends: whoever retries or discards it takes turns.
-- Sets the tenant to the job's own.
CREATE FUNCTION lock_dead_job(p_tenant text, p_job uuid) RETURNS SETOF dead_jobs
LANGUAGE plpgsql ROWS 1 SET search_path = public, pg_temp AS $$
DECLARE
    v_dead dead_jobs;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_dead FROM dead_jobs d
    WHERE d.job_id = p_job AND (p_tenant IS NULL OR d.tenant_id = p_tenant) ORDER BY d.run DESC LIMIT 1 FOR UPDATE;
    IF FOUND THEN
        PERFORM set_config('switchboard.tenant', v_dead.tenant_id, true);
        RETURN NEXT v_dead;
    END IF;
END
$$;

-- A dead job with all its runs, succeeded ones included, and what they cost; NULL when it never died.
CREATE FUNCTION dead_job(p_tenant text, p_job uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_dead dead_jobs;
    v_record jsonb;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_dead FROM dead_jobs d
    WHERE d.job_id = p_job AND (p_tenant IS NULL OR d.tenant_id = p_tenant) ORDER BY d.run DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_record := job_record_of(v_dead.tenant_id, p_job, NULL);
    RETURN jsonb_build_object(
        'dead', dead_job_summary(v_dead), 'metadata', v_record->'metadata', 'usage', v_record->'usage',
        'cost_nano_usd', v_record->'cost_nano_usd',
        'runs', (
            SELECT jsonb_agg(jsonb_build_object(
                'run', j.run, 'state', j.state, 'agent', j.agent, 'attempts', j.attempts, 'error', j.error,
                'created_us', to_unix_us(j.created_at), 'started_us', to_unix_us(j.started_at),
                'finished_us', to_unix_us(j.finished_at), 'payload', d.payload, 'attempt_errors', d.attempt_errors,
                'traceback', d.traceback, 'resolved_us', to_unix_us(d.resolved_at), 'resolved_by', d.resolved_by,
                'retry_position', d.retry_position, 'retry_payload', d.retry_payload) ORDER BY j.run)
            FROM jobs j LEFT JOIN dead_jobs d USING (tenant_id, job_id, run)
            WHERE j.tenant_id = v_dead.tenant_id AND j.job_id = p_job));
END
$$;

-- Says in the locked row that run p_retry_run was started, and by whom. Repeating it changes nothing.
CREATE FUNCTION mark_dead_job_retried(
    p_tenant text, p_job uuid, p_run integer, p_by text, p_retry_run integer, p_position text, p_payload jsonb)
RETURNS boolean LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE dead_jobs SET
        disposition = 'retried', resolved_at = clock_timestamp(), resolved_by = p_by, retry_run = p_retry_run,
        retry_position = p_position, retry_payload = p_payload
    WHERE tenant_id = p_tenant AND job_id = p_job AND run = p_run AND disposition <> 'discarded';
    RETURN FOUND;
END
$$;

-- Gives up on a dead job for good; its row stays. `outcome`: discarded (also when it was before), retried (too late),
-- or NULL when it never died. All its dead runs are closed: none may come up as open again.
CREATE FUNCTION discard_dead_job(p_tenant text, p_job uuid, p_by text, OUT outcome text)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_dead dead_jobs;
BEGIN
    SELECT * INTO v_dead FROM lock_dead_job(p_tenant, p_job);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    outcome := CASE WHEN v_dead.disposition = 'open' AND dead_job_superseded(v_dead) THEN 'retried'
        WHEN v_dead.disposition = 'retried' THEN 'retried' ELSE 'discarded' END;
    UPDATE dead_jobs SET disposition = 'discarded', resolved_at = clock_timestamp(), resolved_by = p_by
    WHERE tenant_id = v_dead.tenant_id AND job_id = p_job AND disposition = 'open' AND outcome = 'discarded';
END
$$;
