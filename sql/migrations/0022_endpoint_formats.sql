-- In which form an endpoint is sent its events: ours (`{"type": "job.succeeded", …, "data": <the job>}`), or that of OpenAI's
-- webhooks (`response.completed`, with the id only). Which events it wants is said in our words in either case.

ALTER TABLE endpoints ADD COLUMN format text NOT NULL DEFAULT 'switchboard' CHECK (format IN ('switchboard', 'openai'));

-- Of a delivery as `claim_deliveries` and `delivery_detail` show it ({tenant, endpoint | endpoint_id}). What goes to a
-- callback URL, to Slack or by mail is in ours. Read at each attempt, as the endpoint's URL is.
CREATE FUNCTION delivery_format(p_delivery jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce((
        SELECT e.format FROM endpoints AS e
        WHERE e.tenant_id = p_delivery->>'tenant'
            AND e.endpoint_id = coalesce(p_delivery->>'endpoint', p_delivery->>'endpoint_id')::uuid), 'switchboard')
$$;

-- As before (0016), with the format.
CREATE OR REPLACE FUNCTION endpoint_resource(e endpoints) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', e.endpoint_id, 'tenant', e.tenant_id, 'url', e.url, 'description', e.description,
        'event_types', e.event_types, 'format', e.format,
        'created_us', to_unix_us(e.created_at), 'created_by', e.created_by,
        'disabled_us', to_unix_us(e.disabled_at), 'disabled_why', e.disabled_why,
        'failures', coalesce(r.failures, 0), 'failing_since_us', to_unix_us(r.failing_since),
        'paused_until_us', to_unix_us(r.open_until),
        'secrets', cardinality(signing_serials(e.tenant_id, e.endpoint_id::text)))
    FROM (SELECT) AS one LEFT JOIN receivers AS r
        ON r.tenant_id = e.tenant_id AND r.receiver = 'endpoint:' || e.endpoint_id
$$;

-- As the one without a format, which processes of the release before this one call.
CREATE FUNCTION create_endpoint(
    p_tenant text, p_url text, p_description text, p_event_types text[], p_by text, p_most integer, p_format text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_made jsonb := create_endpoint(p_tenant, p_url, p_description, p_event_types, p_by, p_most);
    v_new endpoints;
BEGIN
    UPDATE endpoints SET format = p_format WHERE tenant_id = p_tenant AND endpoint_id = (v_made->>'id')::uuid
    RETURNING * INTO v_new;
    RETURN CASE WHEN FOUND THEN endpoint_resource(v_new) END;
END
$$;

-- As before (0016), with the format.
CREATE OR REPLACE FUNCTION change_endpoint(p_tenant text, p_endpoint uuid, p_change jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_new endpoints;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE endpoints AS e SET
        url = coalesce(p_change->>'url', e.url),
        description = coalesce(p_change->>'description', e.description),
        event_types = CASE WHEN p_change ? 'event_types'
            THEN ARRAY(SELECT jsonb_array_elements_text(p_change->'event_types')) ELSE e.event_types END,
        format = coalesce(p_change->>'format', e.format),
        disabled_at = CASE (p_change->>'disabled')::boolean
            WHEN true THEN coalesce(e.disabled_at, now()) WHEN false THEN NULL ELSE e.disabled_at END,
        disabled_why = CASE (p_change->>'disabled')::boolean
            WHEN true THEN coalesce(e.disabled_why, 'asked') WHEN false THEN NULL ELSE e.disabled_why END
    WHERE e.tenant_id = p_tenant AND e.endpoint_id = p_endpoint AND e.removed_at IS NULL
    RETURNING * INTO v_new;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF p_change->>'disabled' = 'false' OR p_change ? 'url' THEN
        UPDATE receivers SET failures = 0, failing_since = NULL, open_until = NULL
        WHERE tenant_id = p_tenant AND receiver = 'endpoint:' || p_endpoint;
    END IF;
    RETURN endpoint_resource(v_new);
END
$$;
