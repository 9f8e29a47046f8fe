-- Spent money is counted in Redis and owned by the ledger: what the counters are made of, and made again from.

ALTER TABLE deployment ADD COLUMN money_opened_at timestamptz;
-- What one conversation has cost is asked when Redis has forgotten it; the ledger grows for ever, its tenants with it.
CREATE INDEX llm_calls_conversation ON llm_calls (tenant_id, conversation_id);

-- Whether counters never stood before, once: then nothing was ever reserved, and no worker can have a call under way.
-- SECURITY DEFINER because nobody but the owner writes `deployment`; it takes nothing and tells one bit.
CREATE FUNCTION open_money_first() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE deployment SET money_opened_at = now() WHERE money_opened_at IS NULL;
    RETURN FOUND;
END
$$;
REVOKE EXECUTE ON FUNCTION open_money_first() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_money_first() TO switchboard_app;

-- Adds ledger rows that are not there yet and returns what the ledger holds for these calls now: it may have been told
-- otherwise by somebody who came first. Each call also names its job_id, run, agent, conversation_id and so on.
CREATE FUNCTION book_calls(p_tenant text, p_calls jsonb)
RETURNS TABLE (call_id uuid, cost_nano_usd bigint, tokens bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM add_llm_calls(p_tenant, '{}', p_calls);
    RETURN QUERY
        SELECT c.call_id, c.cost_nano_usd, c.input_tokens + c.output_tokens FROM llm_calls AS c
        WHERE c.tenant_id = p_tenant AND c.call_id = ANY (
            SELECT (given->>'call_id')::uuid FROM jsonb_array_elements(p_calls) AS given);
END
$$;

-- All that a conversation has ever cost.
CREATE FUNCTION conversation_spent(
    p_tenant text, p_conversation text, OUT cost_nano_usd bigint, OUT tokens bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT coalesce(sum(c.cost_nano_usd), 0), coalesce(sum(c.input_tokens + c.output_tokens), 0)
    INTO conversation_spent.cost_nano_usd, conversation_spent.tokens
    FROM llm_calls AS c WHERE c.tenant_id = p_tenant AND c.conversation_id = p_conversation;
END
$$;

-- The sums behind every counter of a day or month (UTC) that Redis may still have at p_now: those that ended less than
-- three days before. A call belongs to the millisecond inside its id. NULL: of all tenants, of all users.
-- SECURITY DEFINER because the counters of all tenants are made at once, by a worker, which sees one at a time: it
-- takes no name and returns sums only. No request's way leads here.
CREATE FUNCTION spent_sums(p_now timestamptz) RETURNS TABLE (
    kind text, tenant text, "user" text, period text, cost_nano_usd bigint, tokens bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_day timestamp := date_trunc('day', p_now AT TIME ZONE 'UTC' - interval '3 days');
    v_month timestamp := date_trunc('month', v_day);
BEGIN
    PERFORM set_config('switchboard.migrating', 'on', true);  -- the caller is not the owner: his policies do not heed it
    RETURN QUERY
        WITH calls AS (
            SELECT c.tenant_id, c.user_id, c.cost_nano_usd AS cost, c.input_tokens + c.output_tokens AS tokens,
                to_char(m.at, 'YYYYMM') AS month, CASE WHEN m.at >= v_day THEN to_char(m.at, 'YYYYMMDD') END AS day
            FROM llm_calls AS c CROSS JOIN LATERAL (SELECT uuid7_moment(c.call_id) AT TIME ZONE 'UTC' AS at) AS m
            WHERE c.call_id >= uuid7_floor(v_month AT TIME ZONE 'UTC')),
        summed AS (
            SELECT tenant_id, user_id, month, day, sum(cost)::bigint AS cost, sum(calls.tokens)::bigint AS tokens,
                grouping(tenant_id, user_id, month, day) AS without
            FROM calls
            GROUP BY GROUPING SETS ((tenant_id, user_id, month), (tenant_id, month), (tenant_id, day), (month), (day)))
        SELECT
            CASE without
                WHEN 1 THEN 'user-month' WHEN 5 THEN 'tenant-month' WHEN 6 THEN 'tenant-day'
                WHEN 13 THEN 'global-month' ELSE 'global-day' END,
            s.tenant_id, s.user_id, coalesce(s.month, s.day), s.cost, s.tokens
        FROM summed AS s
        WHERE coalesce(s.month, s.day) IS NOT NULL AND (without <> 1 OR s.user_id IS NOT NULL);
END
$$;
REVOKE EXECUTE ON FUNCTION spent_sums(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION spent_sums(timestamptz) TO switchboard_app, switchboard_ops;

-- As before, and what a conversation has cost that has no row yet: nothing, nearly always, and then its first call need
-- not ask. NULL for one that has a row: Redis knows, or asks.
DROP FUNCTION turn_takeover(text, uuid, integer, text, integer, bigint);
DROP FUNCTION turn_context(text, uuid, integer, text, integer);
CREATE FUNCTION turn_context(
    p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer,
    OUT ended jsonb, OUT conversation_user text, OUT history jsonb, OUT settings jsonb, OUT tenant_known boolean,
    OUT spent_nano_usd bigint, OUT spent_tokens bigint)
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
    ELSIF NOT v_begun THEN
        SELECT s.cost_nano_usd, s.tokens INTO spent_nano_usd, spent_tokens
        FROM conversation_spent(p_tenant, p_conversation) AS s;
    END IF;
END
$$;

CREATE FUNCTION turn_takeover(
    p_tenant text, p_job uuid, p_run integer, p_conversation text, p_history integer, p_claim bigint,
    OUT ended jsonb, OUT conversation_user text, OUT history jsonb, OUT settings jsonb, OUT tenant_known boolean,
    OUT spent_nano_usd bigint, OUT spent_tokens bigint)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM register_claim(p_tenant, p_job, p_run, p_claim);
    SELECT * INTO ended, conversation_user, history, settings, tenant_known, spent_nano_usd, spent_tokens
    FROM turn_context(p_tenant, p_job, p_run, p_conversation, p_history);
END
$$;
