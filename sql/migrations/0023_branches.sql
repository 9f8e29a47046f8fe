-- Going on from a response that is not the newest of its conversation: what had been said when it was given.

-- Of a job that has ended: whether it is the newest of its conversation ({newest}); if not, or with p_branch, also what was
-- said up to its own messages ({said}, the newest p_most, oldest first). A job that was never part of its conversation
-- (rejected) has nothing behind it. NULL when the books do not know it.
CREATE FUNCTION branch_point(p_tenant text, p_job uuid, p_branch boolean, p_most integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_conversation text;
    v_last bigint;
    v_newest boolean;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT conversation_id INTO v_conversation FROM jobs WHERE tenant_id = p_tenant AND job_id = p_job LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT max(seq) INTO v_last FROM messages WHERE tenant_id = p_tenant AND job_id = p_job;
    v_newest := NOT EXISTS (
        SELECT FROM messages WHERE tenant_id = p_tenant AND conversation_id = v_conversation AND seq > v_last);
    IF v_newest AND NOT p_branch THEN
        RETURN '{"newest": true}';
    END IF;
    RETURN (
        WITH recent AS (
            SELECT seq, role, body, asked FROM messages
            WHERE tenant_id = p_tenant AND conversation_id = v_conversation AND seq <= v_last
                AND role IN ('user', 'assistant')
            ORDER BY seq DESC LIMIT p_most),
        said AS (
            SELECT seq, 1 + coalesce(jsonb_array_length(asked->'given'), 0) AS place, role, body FROM recent
            UNION ALL
            SELECT seq, given.place, given.item->>'role', given.item->>'content'
            FROM recent, jsonb_array_elements(asked->'given') WITH ORDINALITY AS given(item, place)
            ORDER BY seq DESC, place DESC LIMIT p_most)
        SELECT jsonb_build_object('newest', v_newest, 'said', coalesce(
            jsonb_agg(jsonb_build_object('role', role, 'content', body) ORDER BY seq, place), '[]'))
        FROM said);
END
$$;

-- As before (0018), without what a branch brought along: that was not asked again.
CREATE OR REPLACE FUNCTION response_input(p_tenant text, p_job uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_input jsonb;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT given_anew(asked) || jsonb_build_object('role', 'user', 'content', body) INTO v_input
    FROM messages WHERE tenant_id = p_tenant AND job_id = p_job AND role = 'user';
    IF v_input IS NULL THEN
        SELECT given_anew(payload->'asked') || jsonb_build_object('role', 'user', 'content', payload->>'message')
        INTO v_input FROM dead_jobs
        WHERE tenant_id = p_tenant AND job_id = p_job AND jsonb_typeof(payload) = 'object' ORDER BY run DESC LIMIT 1;
    END IF;
    RETURN v_input;
END
$$;

-- Messages that a request gave along, of what it asked (shared.wire.Asked).
CREATE FUNCTION given_anew(p_asked jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
    FROM jsonb_array_elements(coalesce(p_asked->'given', '[]')) WITH ORDINALITY AS given(item, place)
    WHERE place > coalesce((p_asked->>'branched')::integer, 0)
$$;
