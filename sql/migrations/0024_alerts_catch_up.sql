-- Up to which moment all alerts have been judged: what conversations crossed while nobody judged is told when somebody does.

ALTER TABLE alert_clock ADD COLUMN judged_to timestamptz;

-- Unix us; NULL: not since this is noted.
CREATE FUNCTION alerts_judged_to() RETURNS bigint
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT to_unix_us(judged_to) FROM alert_clock
$$;

-- As `end_alert`, for some thresholds of a rule: below a high one it may still be above a lower one.
CREATE FUNCTION end_alert(p_tenant text, p_name text, p_metric text, p_thresholds numeric[]) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_ended integer;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE alert_events SET over_at = now()
    WHERE tenant_id = p_tenant AND name = p_name AND metric = p_metric AND threshold = ANY (p_thresholds)
        AND over_at IS NULL;
    GET DIAGNOSTICS v_ended = ROW_COUNT;
    RETURN v_ended;
END
$$;

CREATE FUNCTION note_alerts_judged(p_now_us bigint) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE alert_clock SET judged_to = greatest(judged_to, from_unix_us(p_now_us))
$$;
