-- Up to which moment all alerts have been judged: what conversations crossed while nobody judged is told when somebody does.

ALTER TABLE alert_clock ADD COLUMN judged_to timestamptz;

-- Unix us; NULL: not since this is noted.
CREATE FUNCTION alerts_judged_to() RETURNS bigint
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT to_unix_us(judged_to) FROM alert_clock
$$;

CREATE FUNCTION note_alerts_judged(p_now_us bigint) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE alert_clock SET judged_to = greatest(judged_to, from_unix_us(p_now_us))
$$;
