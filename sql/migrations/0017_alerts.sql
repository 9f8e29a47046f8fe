-- Alerts: what a tenant, or the deployment as a whole (tenant `*`, which no tenant can be called), wants to be told.
--
-- A rule names a metric, thresholds and targets. The delivery process judges all rules every minute by the ledger and
-- the jobs. What was crossed becomes one row of alert_events, and in the same transaction one delivery per target: told
-- once for each scope, period, threshold and limit, however many processes judge and however often they are restarted.

CREATE TABLE alerts (
    tenant_id text NOT NULL,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    rule jsonb NOT NULL CHECK (jsonb_typeof(rule) = 'object' AND rule ? 'metric' AND rule ? 'targets'),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
SELECT protect_table('alerts');

CREATE TABLE alert_events (
    tenant_id text NOT NULL,
    event_id uuid NOT NULL DEFAULT uuid7(),
    name text NOT NULL,    -- of the rule
    metric text NOT NULL,
    scope text NOT NULL,   -- what has crossed: `tenant`, `user:u-1`, `conversation:c-1`, `endpoint:…`, `test:…`
    period text NOT NULL,  -- `2026-11`, `2026-11-21`, `2026-11-21T07`; empty: it has none
    threshold numeric NOT NULL,
    threshold_limit numeric NOT NULL, -- what the threshold is a share of: a budget that was raised is another one
    value numeric NOT NULL,
    crossed_at timestamptz NOT NULL DEFAULT now(),
    over_at timestamptz,   -- since when a rate or a latency is below its threshold again
    detail jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, event_id),
    CONSTRAINT alert_events_once UNIQUE (tenant_id, name, metric, scope, period, threshold, threshold_limit)
);
CREATE INDEX alert_events_standing ON alert_events (tenant_id, name) WHERE over_at IS NULL;
SELECT protect_table('alert_events');
REVOKE DELETE ON alert_events FROM switchboard_app;

-- Which minute has been judged: one process of the deployment judges it.
CREATE TABLE alert_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    minute bigint NOT NULL DEFAULT 0
);
INSERT INTO alert_clock DEFAULT VALUES;
REVOKE INSERT, UPDATE, DELETE ON alert_clock FROM switchboard_app;
REVOKE INSERT, DELETE ON alert_clock FROM switchboard_ops;

CREATE SEQUENCE alert_delivery_sequence;
GRANT USAGE ON SEQUENCE alert_delivery_sequence TO switchboard_app, switchboard_ops;

-- --- telling ------------------------------------------------------------------------------------------------------------

-- One delivery for each target of an event ([{"kind": "slack" | "email" | "webhook", "to": "…"}]), of the tenant whose rule
-- has those targets: a hook's URL is a secret. The tenant must be set.
CREATE FUNCTION tell_alert(p_event alert_events, p_tenant text, p_targets jsonb) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO deliveries (tenant_id, kind, url, event_type, sequence, body)
    SELECT p_tenant, target->>'kind', target->>'to', 'alert.crossed', nextval('alert_delivery_sequence'),
        jsonb_build_object(
            'id', p_event.event_id, 'tenant', p_event.tenant_id, 'name', p_event.name, 'metric', p_event.metric,
            'scope', p_event.scope, 'period', p_event.period, 'threshold', p_event.threshold,
            'limit', p_event.threshold_limit, 'value', p_event.value, 'crossed_us', to_unix_us(p_event.crossed_at),
            'over_us', to_unix_us(p_event.over_at), 'detail', p_event.detail)
    FROM jsonb_array_elements(p_targets) AS target
$$;

-- Writes down that a rule's threshold is crossed, and tells its targets; false when that was done before.
-- p_crossing: {name, metric, scope, period, day, threshold, limit, value, detail}. `day` is NULL for what only grows
-- (money); else the crossing is told once a day while it stands, and again when it is over and comes back, in another
-- period. A rule that was removed meanwhile tells nobody.
CREATE FUNCTION cross_alert(p_tenant text, p_crossing jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    c record;
    v_rule jsonb;
    v_event alert_events;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO c FROM jsonb_to_record(p_crossing) AS given(
        name text, metric text, scope text, period text, day text, threshold numeric, "limit" numeric, value numeric,
        detail jsonb);
    SELECT rule INTO v_rule FROM alerts WHERE tenant_id = p_tenant AND name = c.name FOR UPDATE;
    IF NOT FOUND OR v_rule->>'metric' <> c.metric OR c.day IS NOT NULL AND EXISTS (
            SELECT FROM alert_events AS e
            WHERE e.tenant_id = p_tenant AND e.name = c.name AND e.metric = c.metric AND e.scope = c.scope
                AND e.threshold = c.threshold AND e.over_at IS NULL AND left(e.period, 10) = c.day) THEN
        RETURN false;
    END IF;
    INSERT INTO alert_events (tenant_id, name, metric, scope, period, threshold, threshold_limit, value, detail)
    VALUES (p_tenant, c.name, c.metric, c.scope, c.period, c.threshold, c."limit", c.value, coalesce(c.detail, '{}'))
    ON CONFLICT ON CONSTRAINT alert_events_once DO NOTHING RETURNING * INTO v_event;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tell_alert(v_event, p_tenant, v_rule->'targets');
    RETURN true;
END
$$;

-- A rate or a latency is below its threshold again: the next crossing is a new one.
CREATE FUNCTION end_alert(p_tenant text, p_name text, p_metric text) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_ended integer;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE alert_events SET over_at = now()
    WHERE tenant_id = p_tenant AND name = p_name AND metric = p_metric AND over_at IS NULL;
    GET DIAGNOSTICS v_ended = ROW_COUNT;
    RETURN v_ended;
END
$$;

-- A message to the targets of a rule, so that people see that they would be reached. NULL: no such rule.
CREATE FUNCTION test_alert(p_tenant text, p_name text, p_by text) RETURNS uuid
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_rule jsonb;
    v_event alert_events;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT rule INTO v_rule FROM alerts WHERE tenant_id = p_tenant AND name = p_name;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO alert_events (tenant_id, name, metric, scope, period, threshold, threshold_limit, value, over_at, detail)
    VALUES (p_tenant, p_name, 'test', 'test:' || uuid7(), '', 0, 0, 0, now(), jsonb_build_object('by', p_by))
    RETURNING * INTO v_event;
    PERFORM tell_alert(v_event, p_tenant, v_rule->'targets');
    RETURN v_event.event_id;
END
$$;

-- Switches an endpoint off because it went away (`gone`) or has failed for days (`failing`), and tells those who have a
-- rule for that, of the tenant and of the deployment; the event stands in the tenant's history in any case.
CREATE FUNCTION disable_endpoint(p_tenant text, p_endpoint uuid, p_why text, p_error jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_endpoint endpoints;
    v_event alert_events;
BEGIN
    UPDATE endpoints SET disabled_at = now(), disabled_why = p_why
    WHERE tenant_id = p_tenant AND endpoint_id = p_endpoint AND disabled_at IS NULL AND removed_at IS NULL
    RETURNING * INTO v_endpoint;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO alert_events (tenant_id, name, metric, scope, period, threshold, threshold_limit, value, over_at, detail)
    VALUES (p_tenant, 'endpoint-disabled', 'endpoint_disabled', 'endpoint:' || p_endpoint,
        to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), 0, 0, 0, now(),
        jsonb_build_object('url', v_endpoint.url, 'why', p_why, 'error', p_error))
    RETURNING * INTO v_event;
    PERFORM tell_alert(v_event, told.tenant_id, told.targets) FROM (
        SELECT tenant_id, jsonb_agg(DISTINCT target) AS targets
        FROM alerts, jsonb_array_elements(rule->'targets') AS target
        WHERE tenant_id IN (p_tenant, '*') AND rule->>'metric' = 'endpoint_disabled'
        GROUP BY tenant_id) AS told;
END
$$;

-- --- judging: by switchboard_ops --------------------------------------------------------------------------------------------

-- The moment (Unix us) to judge by, for whoever is first to ask in this minute of the server's clock; NULL for others.
CREATE FUNCTION claim_alert_minute() RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_minute constant bigint := floor(extract(epoch FROM now()) / 60);
BEGIN
    UPDATE alert_clock SET minute = v_minute WHERE minute <> v_minute;
    RETURN CASE WHEN FOUND THEN to_unix_us(now()) END;
END
$$;

-- Every rule, with the settings of its tenant (NULL for the deployment's own); none of disabled tenants.
CREATE FUNCTION standing_alerts() RETURNS TABLE (tenant text, name text, rule jsonb, settings jsonb)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT a.tenant_id, a.name, a.rule, t.settings FROM alerts AS a LEFT JOIN tenants AS t USING (tenant_id)
    WHERE a.tenant_id = '*' OR t.disabled_at IS NULL AND t.tenant_id IS NOT NULL
    ORDER BY a.tenant_id, a.name
$$;

-- What was spent from p_from_us to before p_to_us, by a tenant or with `*` by all; and in how many conversations.
CREATE FUNCTION spent_between(
    p_tenant text, p_from_us bigint, p_to_us bigint,
    OUT cost_nano_usd bigint, OUT tokens bigint, OUT conversations bigint)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT coalesce(sum(c.cost_nano_usd), 0), coalesce(sum(c.input_tokens + c.output_tokens), 0),
        count(DISTINCT (c.tenant_id, c.conversation_id))
    INTO cost_nano_usd, tokens, conversations FROM llm_calls AS c
    WHERE (p_tenant = '*' OR c.tenant_id = p_tenant)
        AND c.call_id >= uuid7_floor(from_unix_us(p_from_us)) AND c.call_id < uuid7_floor(from_unix_us(p_to_us));
END
$$;

-- Users of a tenant who spent p_least_nano_usd or more from p_from_us to before p_to_us.
CREATE FUNCTION spending_users(p_tenant text, p_from_us bigint, p_to_us bigint, p_least_nano_usd bigint)
RETURNS TABLE (who text, cost_nano_usd bigint)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT c.user_id, sum(c.cost_nano_usd)::bigint FROM llm_calls AS c
        WHERE c.tenant_id = p_tenant AND c.user_id IS NOT NULL
            AND c.call_id >= uuid7_floor(from_unix_us(p_from_us)) AND c.call_id < uuid7_floor(from_unix_us(p_to_us))
        GROUP BY c.user_id HAVING sum(c.cost_nano_usd) >= p_least_nano_usd;
END
$$;

-- Conversations of a tenant with a call since p_since_us that have cost p_least_nano_usd or more since they began:
-- only the time since the oldest of them began is read.
CREATE FUNCTION spending_conversations(p_tenant text, p_since_us bigint, p_least_nano_usd bigint)
RETURNS TABLE (who text, cost_nano_usd bigint)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
DECLARE
    v_active text[];
    v_first timestamptz;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_active := ARRAY(
        SELECT DISTINCT c.conversation_id FROM llm_calls AS c
        WHERE c.tenant_id = p_tenant AND c.call_id >= uuid7_floor(from_unix_us(p_since_us)));
    SELECT min(created_at) INTO v_first FROM conversations
    WHERE tenant_id = p_tenant AND conversation_id = ANY (v_active);
    RETURN QUERY
        SELECT c.conversation_id, sum(c.cost_nano_usd)::bigint FROM llm_calls AS c
        WHERE c.tenant_id = p_tenant AND c.conversation_id = ANY (v_active)
            AND c.call_id >= uuid7_floor(least(v_first, from_unix_us(p_since_us)) - interval '1 day')
        GROUP BY c.conversation_id HAVING sum(c.cost_nano_usd) >= p_least_nano_usd;
END
$$;

-- Jobs that ended from p_from_us to before p_to_us, of a tenant or with `*` of all: how many, how many of those failed
-- (dead or expired), and how long the successful ones took from accepted to the end. Tenant by tenant and by the moment
-- inside the id, which is how the index goes: what was accepted more than an hour before p_from_us is left out.
CREATE FUNCTION jobs_between(
    p_tenant text, p_from_us bigint, p_to_us bigint,
    OUT ended bigint, OUT failed bigint, OUT succeeded bigint, OUT p50_s double precision, OUT p99_s double precision)
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT
        count(*) FILTER (WHERE j.state IN ('succeeded', 'dead', 'expired')),
        count(*) FILTER (WHERE j.state IN ('dead', 'expired')),
        count(*) FILTER (WHERE j.state = 'succeeded'),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY j.took_s) FILTER (WHERE j.state = 'succeeded'),
        percentile_cont(0.99) WITHIN GROUP (ORDER BY j.took_s) FILTER (WHERE j.state = 'succeeded')
    INTO ended, failed, succeeded, p50_s, p99_s
    FROM tenants AS t CROSS JOIN LATERAL (
        SELECT state, extract(epoch FROM finished_at - created_at)::double precision AS took_s FROM jobs
        WHERE tenant_id = t.tenant_id AND job_id >= uuid7_floor(from_unix_us(p_from_us) - interval '1 hour')
            AND finished_at >= from_unix_us(p_from_us) AND finished_at < from_unix_us(p_to_us)) AS j
    WHERE p_tenant = '*' OR t.tenant_id = p_tenant;
END
$$;

-- Users whose jobs ended from p_from_us to before p_to_us, of a tenant or with `*` of all; found as by jobs_between.
CREATE FUNCTION users_between(p_tenant text, p_from_us bigint, p_to_us bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (
        SELECT count(*) FROM tenants AS t CROSS JOIN LATERAL (
            SELECT DISTINCT user_id FROM jobs
            WHERE tenant_id = t.tenant_id AND user_id IS NOT NULL
                AND job_id >= uuid7_floor(from_unix_us(p_from_us) - interval '1 hour')
                AND job_id < uuid7_floor(from_unix_us(p_to_us) + interval '1 hour')
                AND finished_at >= from_unix_us(p_from_us) AND finished_at < from_unix_us(p_to_us)) AS one
        WHERE p_tenant = '*' OR t.tenant_id = p_tenant);
END
$$;

-- --- rules: people's side ---------------------------------------------------------------------------------------------------

CREATE FUNCTION alert_resource(a alerts) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'tenant', a.tenant_id, 'name', a.name, 'rule', a.rule, 'updated_us', to_unix_us(a.updated_at),
        'updated_by', a.updated_by)
$$;

-- By name: p_tenant's, or with NULL everybody's; one of them with p_name.
CREATE FUNCTION list_alerts(p_tenant text, p_name text) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT alert_resource(a) FROM alerts AS a
        WHERE (p_tenant IS NULL OR a.tenant_id = p_tenant) AND (p_name IS NULL OR a.name = p_name)
        ORDER BY a.tenant_id, a.name;
END
$$;

-- Makes or replaces a rule; `made` says which. NULL: there is no such tenant, or it has p_most rules already.
CREATE FUNCTION put_alert(
    p_tenant text, p_name text, p_rule jsonb, p_by text, p_most integer, OUT made boolean, OUT alert jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_new alerts;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE alerts SET rule = p_rule, updated_at = now(), updated_by = p_by
    WHERE tenant_id = p_tenant AND name = p_name RETURNING * INTO v_new;
    made := NOT FOUND;
    IF made THEN
        INSERT INTO alerts (tenant_id, name, rule, updated_by)
        SELECT p_tenant, p_name, p_rule, p_by
        WHERE (p_tenant = '*' OR EXISTS (SELECT FROM tenants WHERE tenant_id = p_tenant))
            AND (SELECT count(*) FROM alerts WHERE tenant_id = p_tenant) < p_most
        ON CONFLICT (tenant_id, name) DO UPDATE SET
            rule = excluded.rule, updated_at = now(), updated_by = excluded.updated_by
        RETURNING * INTO v_new;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    alert := alert_resource(v_new);
END
$$;

-- False: no such rule. What it has told stays in the history.
CREATE FUNCTION remove_alert(p_tenant text, p_name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    DELETE FROM alerts WHERE tenant_id = p_tenant AND name = p_name;
    RETURN FOUND;
END
$$;

-- What was crossed, the newest first, before p_before: p_tenant's, or with NULL everybody's.
CREATE FUNCTION list_alert_events(p_tenant text, p_before uuid, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT jsonb_build_object(
            'id', e.event_id, 'tenant', e.tenant_id, 'name', e.name, 'metric', e.metric, 'scope', e.scope,
            'period', e.period, 'threshold', e.threshold, 'limit', e.threshold_limit, 'value', e.value,
            'crossed_us', to_unix_us(e.crossed_at), 'over_us', to_unix_us(e.over_at), 'detail', e.detail)
        FROM alert_events AS e
        WHERE (p_tenant IS NULL OR e.tenant_id = p_tenant) AND (p_before IS NULL OR e.event_id < p_before)
        ORDER BY e.event_id DESC LIMIT p_limit;
END
$$;
