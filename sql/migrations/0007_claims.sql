-- A fence in Postgres: an attempt that was taken over commits nothing.
--
-- Redis fences what a worker writes there by the claim it holds; a frozen worker that wakes could still commit here
-- before it learns that its job was given to another. So a claim that is not a job's first registers itself before it
-- reads the context, and an end by an older claim is refused from then on. First claims, nearly all, write nothing.
-- Claims are Unix µs of Redis's clock: a later one is greater, also after Redis forgot everything.

CREATE TABLE job_claims (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    run integer NOT NULL CHECK (run > 0),
    claim bigint NOT NULL CHECK (claim > 0),
    PRIMARY KEY (tenant_id, job_id, run)
);
SELECT protect_table('job_claims');

-- Takes a job over for a later claim. The tenant must be set.
CREATE FUNCTION register_claim(p_tenant text, p_job uuid, p_run integer, p_claim bigint) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO job_claims AS c (tenant_id, job_id, run, claim) VALUES (p_tenant, p_job, p_run, p_claim)
    ON CONFLICT (tenant_id, job_id, run) DO UPDATE SET claim = greatest(c.claim, excluded.claim)
$$;

-- turn_context for a claim that takes a job over: registered first, so that whatever it reads stays true.
CREATE FUNCTION turn_takeover(
    p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer, p_claim bigint,
    OUT ended jsonb, OUT conversation_user text, OUT history jsonb, OUT settings jsonb, OUT tenant_known boolean)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM register_claim(p_tenant, p_job, p_run, p_claim);
    SELECT * INTO ended, conversation_user, history, settings, tenant_known
    FROM turn_context(p_tenant, p_job, p_run, p_conversation, p_history);
END
$$;

-- commit_turn as before, but an end whose `claim` is older than the registered one wins nothing: its calls are booked
-- (they were paid for), `won` is false, and `record` is NULL while the job has no end. An end without a `claim`
-- (never started, or by an operator) is not fenced. The winner forgets the registration; its row is the fence then.
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
    IF won THEN
        PERFORM insert_delivery(p_tenant, p_turn, v_sequence, record);
    END IF;
END
$$;
