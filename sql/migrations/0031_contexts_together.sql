-- The contexts of turns that ask at the same moment: one statement for those of a tenant, where `turn_contexts` (0020) called
-- `turn_context` and `turn_memory` for each of them, a dozen statements a turn.

-- p_asked: [{tenant, job, run, conversation, history, said}], where `said` is NULL for agents without memory. A row for each,
-- which `place` counts from 1 on, says what `turn_context` says of it, and `memory` what `turn_memory` does, of nobody or of
-- the conversation's owner, p_tokens and p_hits of it at most; NULL where `said` is. Sets the tenants, one after the other.
CREATE FUNCTION contexts_together(p_asked jsonb, p_tokens integer, p_hits integer)
RETURNS TABLE (
    place bigint, ended jsonb, conversation_user text, history jsonb, settings jsonb, tenant_known boolean,
    spent_nano_usd bigint, spent_tokens bigint, memory jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_tenant text;
BEGIN
    FOR v_tenant IN SELECT DISTINCT given->>'tenant' FROM jsonb_array_elements(p_asked) AS given LOOP
        PERFORM set_config('switchboard.tenant', v_tenant, true);
        -- OFFSET 0: looked up by key for each, whatever the planner thinks of tables that are new
        RETURN QUERY
            SELECT a.place, CASE WHEN j.job_id IS NOT NULL THEN job_record_of(v_tenant, a.job, a.run) END, c.user_id,
                CASE WHEN c.conversation_id IS NOT NULL AND a.history > 0
                    THEN recent_messages(v_tenant, a.job, a.run, a.conversation, a.history) ELSE '[]' END,
                coalesce(t.settings, '{}'), t.tenant_id IS NOT NULL AND t.disabled_at IS NULL,
                s.cost_nano_usd, s.tokens,
                CASE WHEN a.said IS NULL THEN NULL
                    WHEN c.user_id IS NOT NULL THEN turn_memory(
                        v_tenant, a.conversation, c.user_id, a.history, a.said, NULL, NULL, p_tokens, p_hits)
                    ELSE jsonb_build_object('summary', m.body, 'profile', '{}'::jsonb, 'facts', '[]'::jsonb, 'recall', NULL)
                END
            FROM ROWS FROM (jsonb_to_recordset(p_asked) AS (
                tenant text, job uuid, run integer, conversation text, history integer, said text))
                WITH ORDINALITY AS a(tenant, job, run, conversation, history, said, place)
            LEFT JOIN LATERAL (
                SELECT job_id FROM jobs WHERE tenant_id = v_tenant AND job_id = a.job AND run = a.run OFFSET 0) AS j ON true
            LEFT JOIN LATERAL (
                SELECT conversation_id, user_id FROM conversations
                WHERE tenant_id = v_tenant AND conversation_id = a.conversation OFFSET 0) AS c ON true
            LEFT JOIN LATERAL (
                SELECT body FROM conversation_summaries
                WHERE c.conversation_id IS NOT NULL AND a.said IS NOT NULL AND tenant_id = v_tenant
                    AND conversation_id = a.conversation OFFSET 0) AS m ON true
            LEFT JOIN LATERAL (  -- as conversation_spent, of those that have no row
                SELECT coalesce(sum(l.cost_nano_usd), 0)::bigint AS cost_nano_usd,
                    coalesce(sum(l.input_tokens + l.output_tokens), 0)::bigint AS tokens
                FROM llm_calls AS l WHERE l.tenant_id = v_tenant AND l.conversation_id = a.conversation OFFSET 0
            ) AS s ON c.conversation_id IS NULL
            LEFT JOIN (SELECT * FROM tenants WHERE tenant_id = v_tenant) AS t ON true
            WHERE a.tenant = v_tenant;
    END LOOP;
END
$$;
