-- What was used and what it cost: views over the ledger, and the report that the command line and the console show.
--
-- The ledger is the only source: nothing is rolled up, so nothing can disagree with it. A call belongs to the moment
-- inside its id, which is also what the partitions are bounded by: the hours of a range add up to the range exactly.

-- The millisecond a UUIDv7 was made in; inverse of uuid7_floor.
CREATE FUNCTION uuid7_moment(p_id uuid) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT timestamptz 'epoch'
        + ('x' || encode(substring(uuid_send(p_id) FOR 6), 'hex'))::bit(48)::bigint * interval '1 millisecond'
$$;

-- The ledger by the names reports use: each text column, and each unit of time (its beginning, UTC; weeks begin on
-- Monday), is something to group by. security_invoker: whoever asks sees the rows of llm_calls that are theirs.
CREATE VIEW usage_calls WITH (security_invoker = true) AS
SELECT
    c.call_id, c.job_id, c.run, c.attempt, c.tenant_id AS tenant, c.user_id AS "user", c.agent,
    c.conversation_id AS conversation, c.domain, c.feature, c.kind, c.provider, c.model, c.status, c.estimated,
    c.input_tokens, c.output_tokens, c.cached_tokens, c.cache_write_tokens, c.reasoning_tokens,
    c.cost_nano_usd, c.usd,
    date_trunc('hour', m.at) AS hour, date_trunc('day', m.at) AS day,
    date_trunc('week', m.at) AS week, date_trunc('month', m.at) AS month
FROM llm_calls AS c CROSS JOIN LATERAL (SELECT uuid7_moment(c.call_id) AT TIME ZONE 'UTC' AS at) AS m;

-- For people with a SQL prompt. A condition on the time does not reach the partitions through a grouping view: over
-- much data ask usage_report, or usage_calls with `call_id >= uuid7_floor(…)`.
CREATE VIEW usage_hourly WITH (security_invoker = true) AS
SELECT
    hour, tenant, domain, agent, provider, model, count(*) AS calls, count(*) FILTER (WHERE status <> 'ok') AS not_ok,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cached_tokens) AS cached_tokens,
    sum(cost_nano_usd) AS cost_nano_usd, sum(usd) AS usd
FROM usage_calls GROUP BY hour, tenant, domain, agent, provider, model;

CREATE VIEW usage_daily WITH (security_invoker = true) AS
SELECT
    day, tenant, domain, agent, provider, model, count(*) AS calls, count(*) FILTER (WHERE status <> 'ok') AS not_ok,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cached_tokens) AS cached_tokens,
    sum(cost_nano_usd) AS cost_nano_usd, sum(usd) AS usd
FROM usage_calls GROUP BY day, tenant, domain, agent, provider, model;

CREATE VIEW usage_domain_costs WITH (security_invoker = true) AS
SELECT
    day, tenant, domain, count(DISTINCT job_id) AS jobs, count(*) AS calls, sum(cost_nano_usd) AS cost_nano_usd,
    sum(usd) AS usd
FROM usage_calls GROUP BY day, tenant, domain;

REVOKE INSERT, UPDATE, DELETE ON usage_calls, usage_hourly, usage_daily, usage_domain_costs
    FROM switchboard_app, switchboard_ops;

-- The sums of a report. A call has exactly one of four fates (ok, failed, aborted, lost); a status of a later version
-- counts as failed. Estimated is apart from that.
CREATE FUNCTION usage_sums() RETURNS TABLE (name text, measure text)
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT * FROM (VALUES
        ('calls', 'count(*)'),
        ('input_tokens', 'sum(input_tokens)'),
        ('output_tokens', 'sum(output_tokens)'),
        ('cached_tokens', 'sum(cached_tokens)'),
        ('cache_write_tokens', 'sum(cache_write_tokens)'),
        ('reasoning_tokens', 'sum(reasoning_tokens)'),
        ('cost_nano_usd', 'sum(cost_nano_usd)')) AS given(name, measure)
    UNION ALL
    SELECT fate || '_' || what, measure || ' FILTER (WHERE ' || condition || ')' FROM (VALUES
        ('ok', 'status = ''ok'''),
        ('failed', 'status NOT IN (''ok'', ''aborted'', ''lost'')'),
        ('aborted', 'status = ''aborted'''),
        ('lost', 'status = ''lost'''),
        ('estimated', 'estimated')) AS fates(fate, condition),
        (VALUES ('calls', 'count(*)'), ('cost_nano_usd', 'sum(cost_nano_usd)')) AS measures(what, measure)
$$;

-- The statement of a report: $1 the filter, $2 and $3 the bounds of the call id, $4 how many groups at most or NULL.
-- Only text of ours and quoted names of usage_calls' columns: values stay in $1. One statement, so that totals and
-- groups are of one instant. Distinct jobs are counted apart: beside the sums they would keep every call in a sort.
CREATE FUNCTION usage_statement(p_filter jsonb, p_by text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
DECLARE
    c_units constant text[] := '{hour,day,week,month}';
    c_names constant text[] := '{tenant,user,agent,conversation,domain,feature,kind,provider,model,status}';
    v_filters text[] := (SELECT coalesce(array_agg(name), '{}') FROM jsonb_object_keys(p_filter) AS given(name));
    v_keys text := (SELECT string_agg(quote_ident(name), ', ') FROM unnest(p_by) AS given(name));
    v_conditions text := (
        SELECT coalesce(string_agg(format(' AND %1$I = $1->>%1$L', name), ''), '')
        FROM unnest(v_filters) AS given(name));
    v_time text := (SELECT string_agg(name || ', ', '') FROM unnest(p_by) AS given(name) WHERE name = ANY (c_units));
BEGIN
    IF v_keys IS NULL OR NOT p_by <@ (c_names || c_units) OR NOT v_filters <@ c_names THEN
        RAISE invalid_parameter_value USING MESSAGE = 'usage cannot be grouped or filtered like that';
    END IF;
    RETURN format(
        'WITH summed AS (SELECT %1$s, NULL::numeric AS jobs, %2$s FROM usage_calls WHERE %3$s GROUP BY %1$s), '
        'job AS MATERIALIZED ('
        '  SELECT %1$s, tenant AS of_tenant, job_id FROM usage_calls WHERE %3$s GROUP BY %1$s, of_tenant, job_id), '
        'counted AS (SELECT %1$s, count(*)%5$s FROM job GROUP BY %1$s), '
        'groups AS MATERIALIZED ('
        '  SELECT %1$s, sum(jobs) AS jobs, %4$s FROM (SELECT * FROM summed UNION ALL SELECT * FROM counted) AS halves'
        '  GROUP BY %1$s), '
        'shown AS (SELECT * FROM groups ORDER BY cost_nano_usd DESC, %1$s LIMIT $4), '
        'totals AS ('
        '  SELECT count(*) AS groups, %4$s,'
        '    (SELECT count(*) FROM (SELECT FROM job GROUP BY of_tenant, job_id) AS one) AS jobs FROM groups) '
        'SELECT line FROM ('
        '  SELECT 0 AS place, to_jsonb(totals) AS line FROM totals UNION ALL'
        '  SELECT row_number() OVER (ORDER BY %6$scost_nano_usd DESC, %1$s), to_jsonb(shown) FROM shown) AS lines '
        'ORDER BY place',
        v_keys,
        (SELECT string_agg(measure || ' AS ' || name, ', ') FROM usage_sums()),
        'call_id >= $2 AND call_id < $3' || v_conditions,
        (SELECT string_agg(format('coalesce(sum(%1$s), 0) AS %1$s', name), ', ') FROM usage_sums()),
        (SELECT repeat(', NULL::numeric', count(*)::integer) FROM usage_sums()),
        v_time);
END
$$;

-- Calls from p_from to before p_to (whole milliseconds), summed by the columns of usage_calls that p_by names: first
-- the totals, with how many groups and jobs there are, then the p_top dearest groups (NULL: all), in order of time.
-- p_filter has values of its text columns by name. Its tenant is the one that app sees; without one only ops sees any.
CREATE FUNCTION usage_report(p_filter jsonb, p_by text[], p_from timestamptz, p_to timestamptz, p_top bigint)
RETURNS SETOF jsonb LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_filter->>'tenant', true);
    RETURN QUERY EXECUTE usage_statement(p_filter, p_by)
    USING p_filter, uuid7_floor(p_from), uuid7_floor(p_to), p_top;  -- bounds the planner knows: no other month is read
END
$$;
