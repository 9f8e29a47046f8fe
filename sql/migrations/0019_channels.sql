-- Channels (messengers): whose they are, their credentials, and what they bring that is no message.
--
-- Written by switchboard_ops (or the owner); the app role may read a channel it knows the id of, and keeps what came in.
-- Functions that take a tenant set it first; where they allow NULL it means all tenants, which only switchboard_ops sees.

CREATE TABLE channels (
    channel_id text PRIMARY KEY CHECK (channel_id ~ '^ch-[a-z0-9]{16}$'),
    tenant_id text NOT NULL REFERENCES tenants,
    kind text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9-]{0,31}$'),  -- which there are, the code knows
    name text NOT NULL,
    agent text NOT NULL,
    domain text,
    feature text,
    settings jsonb NOT NULL CHECK (jsonb_typeof(settings) = 'object'),
    sealed text NOT NULL,  -- the credentials, encrypted by a key that is not in this database
    held jsonb NOT NULL CHECK (jsonb_typeof(held) = 'object'),  -- which credentials there are, and how many of each
    version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX channels_tenant ON channels (tenant_id, channel_id);
SELECT protect_table('channels');
REVOKE INSERT, UPDATE, DELETE ON channels FROM switchboard_app;

-- A provider's request names its channel before the tenant is known. Whoever knows the id may read that one row.
CREATE POLICY own_channel ON channels FOR SELECT
    USING (channel_id = current_setting('switchboard.channel_id', true));

-- What became of messages that we sent: each state once, in whatever order the provider tells.
CREATE TABLE channel_statuses (
    tenant_id text NOT NULL,
    channel_id text NOT NULL,
    message_id text NOT NULL,  -- the provider's
    state text NOT NULL CHECK (state IN ('sent', 'delivered', 'read', 'played', 'failed')),
    at timestamptz,  -- the provider's clock
    recipient text,
    error jsonb,
    details jsonb NOT NULL DEFAULT '{}',
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, channel_id, message_id, state)
);
CREATE INDEX channel_statuses_received ON channel_statuses (tenant_id, received_at);
SELECT protect_table('channel_statuses');

-- What came in and is no message to answer; the same thing once, however often it is delivered.
CREATE TABLE inbound_kept (
    tenant_id text NOT NULL,
    channel_id text NOT NULL,
    digest text NOT NULL,
    reason text NOT NULL,
    payload jsonb NOT NULL,
    times integer NOT NULL DEFAULT 1,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, channel_id, digest)
);
CREATE INDEX inbound_kept_received ON inbound_kept (tenant_id, channel_id, received_at);
SELECT protect_table('inbound_kept');

ALTER TABLE tenant_changes DROP CONSTRAINT tenant_changes_action_check;
ALTER TABLE tenant_changes ADD CONSTRAINT tenant_changes_action_check CHECK (action ~ '^[a-z_]{1,32}$');

-- Everything of a channel but its credentials.
CREATE FUNCTION channel_resource(c channels) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', c.channel_id, 'tenant', c.tenant_id, 'kind', c.kind, 'name', c.name, 'agent', c.agent,
        'domain', c.domain, 'feature', c.feature, 'settings', c.settings, 'credentials', c.held, 'version', c.version,
        'created_us', to_unix_us(c.created_at), 'updated_us', to_unix_us(c.updated_at))
$$;

-- For the ingress: the channel, its credentials, and its tenant's settings. No row when there is none, or its tenant is
-- disabled.
CREATE FUNCTION resolve_channel(p_id text)
RETURNS TABLE (channel jsonb, sealed text, settings jsonb, settings_version bigint)
LANGUAGE plpgsql ROWS 1 SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_channel channels;
BEGIN
    PERFORM set_config('switchboard.channel_id', p_id, true);
    SELECT * INTO v_channel FROM channels WHERE channel_id = p_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM set_config('switchboard.tenant', v_channel.tenant_id, true);
    RETURN QUERY
        SELECT channel_resource(v_channel), v_channel.sealed, t.settings, t.settings_version FROM tenants AS t
        WHERE t.tenant_id = v_channel.tenant_id AND t.disabled_at IS NULL;
END
$$;

-- By id: p_tenant's own, or with NULL all of them; after p_after.
CREATE FUNCTION list_channels(p_tenant text, p_after text, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF p_tenant IS NOT NULL THEN
        PERFORM set_config('switchboard.tenant', p_tenant, true);
    END IF;
    RETURN QUERY
        SELECT channel_resource(c) FROM channels AS c
        WHERE (p_tenant IS NULL OR c.tenant_id = p_tenant) AND (p_after IS NULL OR c.channel_id > p_after)
        ORDER BY c.channel_id LIMIT p_limit;
END
$$;

-- One with its credentials, sealed. No row: no such channel, or not p_tenant's; with NULL any tenant's.
CREATE FUNCTION find_channel(p_tenant text, p_id text) RETURNS TABLE (channel jsonb, sealed text)
LANGUAGE plpgsql ROWS 1 SET search_path = public, pg_temp AS $$
BEGIN
    IF p_tenant IS NOT NULL THEN
        PERFORM set_config('switchboard.tenant', p_tenant, true);
    END IF;
    RETURN QUERY
        SELECT channel_resource(c), c.sealed FROM channels AS c
        WHERE c.channel_id = p_id AND (p_tenant IS NULL OR c.tenant_id = p_tenant);
END
$$;

-- p_channel has kind, name, agent, domain, feature, settings and held. NULL: no such tenant.
CREATE FUNCTION create_channel(p_tenant text, p_id text, p_channel jsonb, p_sealed text, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_channel channels;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO channels (channel_id, tenant_id, kind, name, agent, domain, feature, settings, sealed, held)
    SELECT p_id, t.tenant_id, g.kind, g.name, g.agent, g.domain, g.feature, g.settings, p_sealed, g.held
    FROM tenants AS t, jsonb_to_record(p_channel) AS g(
        kind text, name text, agent text, domain text, feature text, settings jsonb, held jsonb)
    WHERE t.tenant_id = p_tenant RETURNING * INTO v_channel;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM note_tenant_change(p_tenant, p_by, 'channel_created', NULL, channel_resource(v_channel));
    RETURN channel_resource(v_channel);
END
$$;

-- Replaces what may change if the version is still p_version. `stale`: the resource as it is; NULL: no such channel.
CREATE FUNCTION change_channel(
    p_tenant text, p_id text, p_version bigint, p_channel jsonb, p_sealed text, p_by text,
    OUT stale boolean, OUT channel jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_old channels;
    v_new channels;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_old FROM channels WHERE channel_id = p_id AND tenant_id = p_tenant FOR UPDATE;
    stale := v_old.version IS DISTINCT FROM p_version;
    IF v_old.channel_id IS NULL THEN
        RETURN;
    END IF;
    IF stale THEN
        channel := channel_resource(v_old);
        RETURN;
    END IF;
    UPDATE channels SET
        name = g.name, agent = g.agent, domain = g.domain, feature = g.feature, settings = g.settings, held = g.held,
        sealed = p_sealed, version = version + 1, updated_at = now()
    FROM jsonb_to_record(p_channel) AS g(
        name text, agent text, domain text, feature text, settings jsonb, held jsonb)
    WHERE channel_id = p_id RETURNING channels.* INTO v_new;
    PERFORM note_tenant_change(
        p_tenant, p_by, 'channel_changed', channel_resource(v_old), channel_resource(v_new));
    channel := channel_resource(v_new);
END
$$;

-- With its credentials; what it brought stays. NULL: no such channel, or not p_tenant's; with NULL any tenant's.
CREATE FUNCTION remove_channel(p_tenant text, p_id text, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_channel channels;
BEGIN
    IF p_tenant IS NOT NULL THEN
        PERFORM set_config('switchboard.tenant', p_tenant, true);
    END IF;
    DELETE FROM channels WHERE channel_id = p_id AND (p_tenant IS NULL OR tenant_id = p_tenant)
    RETURNING * INTO v_channel;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM note_tenant_change(v_channel.tenant_id, p_by, 'channel_removed', channel_resource(v_channel), NULL);
    RETURN channel_resource(v_channel);
END
$$;

-- Takes in what channels brought, and lets go of what is old: statuses after 90 days, the rest after 30 days or when a
-- channel has brought 10,000 newer ones. Repeating it changes only how often something came. How many rows were given.
CREATE FUNCTION note_inbound(p_tenant text, p_rows jsonb) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_channel text;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO channel_statuses (
        tenant_id, channel_id, message_id, state, at, recipient, error, details, received_at)
    SELECT p_tenant, g.channel, g.message_id, g.state, from_unix_us(g.at_us), g.recipient, g.error,
        coalesce(g.details, '{}'), from_unix_us(g.received_us)
    FROM jsonb_to_recordset(p_rows) AS g(
        channel text, message_id text, state text, at_us bigint, recipient text, error jsonb, details jsonb,
        received_us bigint)
    WHERE g.message_id IS NOT NULL
    ON CONFLICT DO NOTHING;
    INSERT INTO inbound_kept AS k (tenant_id, channel_id, digest, reason, payload, times, received_at)
    SELECT p_tenant, g.channel, g.digest, min(g.reason), (array_agg(g.payload))[1], count(*),
        from_unix_us(max(g.received_us))
    FROM jsonb_to_recordset(p_rows) AS g(
        channel text, digest text, reason text, payload jsonb, received_us bigint)
    WHERE g.digest IS NOT NULL GROUP BY g.channel, g.digest
    ON CONFLICT (tenant_id, channel_id, digest) DO UPDATE SET
        times = k.times + excluded.times, received_at = greatest(k.received_at, excluded.received_at);
    DELETE FROM channel_statuses WHERE tenant_id = p_tenant AND received_at < now() - interval '90 days';
    FOR v_channel IN
        SELECT DISTINCT g.channel FROM jsonb_to_recordset(p_rows) AS g(channel text, digest text)
        WHERE g.digest IS NOT NULL
    LOOP
        DELETE FROM inbound_kept WHERE tenant_id = p_tenant AND channel_id = v_channel AND received_at < greatest(
            now() - interval '30 days',
            (SELECT received_at FROM inbound_kept WHERE tenant_id = p_tenant AND channel_id = v_channel
             ORDER BY received_at DESC OFFSET 10000 LIMIT 1));
    END LOOP;
    RETURN jsonb_array_length(p_rows);
END
$$;

-- The newest first.
CREATE FUNCTION list_inbound_kept(p_tenant text, p_channel text, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT jsonb_build_object(
            'id', k.digest, 'channel', k.channel_id, 'reason', k.reason, 'payload', k.payload, 'times', k.times,
            'received_us', to_unix_us(k.received_at))
        FROM inbound_kept AS k WHERE k.tenant_id = p_tenant AND k.channel_id = p_channel
        ORDER BY k.received_at DESC, k.digest LIMIT p_limit;
END
$$;

-- What is known of a message that we sent: every state, and the furthest one.
CREATE FUNCTION message_states(p_tenant text, p_channel text, p_message text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (
        SELECT jsonb_build_object(
            'state', (array_agg(s.state ORDER BY
                array_position(ARRAY['sent', 'failed', 'delivered', 'read', 'played'], s.state) DESC))[1],
            'states', jsonb_agg(jsonb_build_object(
                'state', s.state, 'at_us', to_unix_us(s.at), 'error', s.error, 'details', s.details) ORDER BY s.at))
        FROM channel_statuses AS s
        WHERE s.tenant_id = p_tenant AND s.channel_id = p_channel AND s.message_id = p_message
        HAVING count(*) > 0);
END
$$;
