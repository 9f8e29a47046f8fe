-- Deliveries are not kept for ever: what ended long ago goes, with its log.

-- At most p_most rows that were made and ended more than p_days ago; how many. Their log and their parts go with them. By ids, which
-- are in the order of their making: no further index. By switchboard_ops.
CREATE FUNCTION forget_deliveries(p_days integer, p_most integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_before constant timestamptz := now() - p_days * interval '1 day';
    v_gone integer;
BEGIN
    DELETE FROM deliveries WHERE delivery_id IN (
        SELECT delivery_id FROM deliveries
        WHERE delivery_id < uuid7_floor(v_before) AND finished_at < v_before
        ORDER BY delivery_id LIMIT p_most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END
$$;

-- Logs and parts go by their delivery's id alone.
CREATE INDEX delivery_attempts_delivery ON delivery_attempts (delivery_id);
CREATE INDEX delivery_parts_delivery ON delivery_parts (delivery_id);
