-- The place that filling a model has come to names a user (0026): an erasure of that user moves it to the tenant's begin.
-- What lies behind it is looked at again, which changes nothing.

-- As before (0030), and those places. By now the user's items are gone, and no run can come to them any more.
CREATE OR REPLACE FUNCTION erase_apart(
    p_tenant text, p_user text, p_address text, p_conversations text[], p_before_us bigint, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_before constant timestamptz := from_unix_us(p_before_us);
    v_counts jsonb := '{}';
    v_deleted bigint;
    v_named constant text[] := ARRAY(
        SELECT 'conversation:' || unnest(p_conversations) UNION ALL SELECT 'user-month:' || p_user
        UNION ALL SELECT 'user:' || p_user);
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    DELETE FROM alert_events WHERE tenant_id = p_tenant AND scope = ANY (v_named) AND crossed_at <= v_before;
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('alert_events', v_deleted));
    DELETE FROM deliveries WHERE tenant_id = p_tenant AND job_id IS NULL AND body->>'scope' = ANY (v_named)
        AND created_at <= v_before;
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('deliveries', v_deleted));
    DELETE FROM channel_paces WHERE tenant_id = p_tenant AND peer <> '' AND (
        peer = p_address OR peer = ANY (ARRAY(
            SELECT split_part(room, ':', 2) FROM unnest(p_conversations) AS given(room) WHERE room LIKE 'ch-%:%')));
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    v_counts := add_counts(v_counts, jsonb_build_object('channel_paces', v_deleted));
    IF p_address IS NOT NULL THEN
        DELETE FROM channel_statuses WHERE tenant_id = p_tenant AND recipient = p_address AND received_at <= v_before;
        GET DIAGNOSTICS v_deleted = ROW_COUNT;
        v_counts := add_counts(v_counts, jsonb_build_object('channel_statuses', v_deleted));
        DELETE FROM inbound_kept WHERE tenant_id = p_tenant AND received_at <= v_before AND (
            jsonb_path_exists(payload, '$.** ? (@ == $it)', jsonb_build_object('it', p_address))
            OR position(to_json(p_address)::text IN coalesce(payload->>'start', '')) > 0);
        GET DIAGNOSTICS v_deleted = ROW_COUNT;
        v_counts := add_counts(v_counts, jsonb_build_object('inbound_kept', v_deleted));
    END IF;
    IF p_user IS NOT NULL THEN
        v_counts := add_counts(v_counts, unname_user(p_tenant, p_user, p_by));
        PERFORM FROM embedding_models ORDER BY model_id FOR UPDATE;  -- a run under way writes its place first
        UPDATE embedding_models SET filled_user = '', filled_item = 0
        WHERE filled_tenant = p_tenant AND filled_user = p_user;
    END IF;
    RETURN v_counts;
END
$$;
