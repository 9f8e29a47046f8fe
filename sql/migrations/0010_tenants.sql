-- Operating tenants and keys: settings with a version, keys with an end, and who changed what when.
--
-- Everything here is written by switchboard_ops (or the owner); the app role may read its own tenant's rows, no more.
-- Functions that take a tenant set it first, so that they work for a role that row-level security binds; where they
-- allow NULL it means all tenants, which only switchboard_ops sees.

ALTER TABLE tenants ADD COLUMN settings_version bigint NOT NULL DEFAULT 1 CHECK (settings_version > 0);
ALTER TABLE api_keys
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN created_by text NOT NULL DEFAULT '';

-- What names a key to people and in the books (`key:<id>`): nothing of the key itself.
CREATE FUNCTION api_key_id(p_sha256 text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(p_sha256, 12)
$$;
CREATE UNIQUE INDEX api_keys_id ON api_keys (api_key_id(key_sha256));

CREATE TABLE tenant_changes (
    tenant_id text NOT NULL,
    change_id uuid NOT NULL DEFAULT uuid7(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL,
    action text NOT NULL CHECK (
        action IN ('created', 'changed', 'disabled', 'enabled', 'key_created', 'key_revoked')),
    before jsonb,
    after jsonb,
    PRIMARY KEY (tenant_id, change_id)
);
SELECT protect_table('tenant_changes');
REVOKE INSERT, UPDATE, DELETE ON tenant_changes FROM switchboard_app;
REVOKE UPDATE, DELETE ON tenant_changes FROM switchboard_ops;

CREATE FUNCTION tenant_resource(t tenants) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', t.tenant_id, 'name', t.name, 'settings', t.settings, 'settings_version', t.settings_version,
        'created_us', to_unix_us(t.created_at), 'updated_us', to_unix_us(t.updated_at),
        'disabled_us', to_unix_us(t.disabled_at))
$$;

CREATE FUNCTION api_key_resource(k api_keys) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', api_key_id(k.key_sha256), 'tenant', k.tenant_id, 'label', k.label, 'scopes', k.scopes,
        'created_us', to_unix_us(k.created_at), 'created_by', k.created_by, 'expires_us', to_unix_us(k.expires_at),
        'revoked_us', to_unix_us(k.revoked_at))
$$;

CREATE FUNCTION note_tenant_change(p_tenant text, p_by text, p_action text, p_before jsonb, p_after jsonb) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO tenant_changes (tenant_id, changed_by, action, before, after)
    VALUES (p_tenant, p_by, p_action, p_before, p_after)
$$;

-- By id: p_tenant's own, or with NULL all of them; after p_after.
CREATE FUNCTION list_tenants(p_tenant text, p_after text, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF p_tenant IS NOT NULL THEN
        PERFORM set_config('switchboard.tenant', p_tenant, true);
    END IF;
    RETURN QUERY
        SELECT tenant_resource(t) FROM tenants AS t
        WHERE (p_tenant IS NULL OR t.tenant_id = p_tenant) AND (p_after IS NULL OR t.tenant_id > p_after)
        ORDER BY t.tenant_id LIMIT p_limit;
END
$$;

-- NULL when there is one of that id.
CREATE FUNCTION create_tenant(p_tenant text, p_name text, p_settings jsonb, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_tenant tenants;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO tenants (tenant_id, name, settings) VALUES (p_tenant, p_name, p_settings)
    ON CONFLICT (tenant_id) DO NOTHING RETURNING * INTO v_tenant;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM note_tenant_change(p_tenant, p_by, 'created', NULL, jsonb_build_object('name', p_name, 'settings', p_settings));
    RETURN tenant_resource(v_tenant);
END
$$;

-- Replaces name and settings if the version is still p_version. `stale`: the resource as it is; NULL: no such tenant.
CREATE FUNCTION change_tenant(
    p_tenant text, p_version bigint, p_name text, p_settings jsonb, p_by text, OUT stale boolean, OUT tenant jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_old tenants;
    v_new tenants;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_old FROM tenants WHERE tenant_id = p_tenant FOR UPDATE;
    stale := v_old.settings_version IS DISTINCT FROM p_version;
    IF v_old.tenant_id IS NULL THEN
        RETURN;
    END IF;
    IF stale OR (v_old.name = p_name AND v_old.settings = p_settings) THEN
        tenant := tenant_resource(v_old);
        RETURN;
    END IF;
    UPDATE tenants SET
        name = p_name, settings = p_settings, settings_version = settings_version + 1, updated_at = now()
    WHERE tenant_id = p_tenant RETURNING * INTO v_new;
    PERFORM note_tenant_change(
        p_tenant, p_by, 'changed',
        jsonb_build_object('name', v_old.name, 'settings', v_old.settings, 'settings_version', v_old.settings_version),
        jsonb_build_object('name', v_new.name, 'settings', v_new.settings, 'settings_version', v_new.settings_version));
    tenant := tenant_resource(v_new);
END
$$;

-- Disables or enables; repeating it changes nothing. NULL: no such tenant.
CREATE FUNCTION switch_tenant(p_tenant text, p_disabled boolean, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_tenant tenants;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_tenant FROM tenants WHERE tenant_id = p_tenant FOR UPDATE;
    IF v_tenant.tenant_id IS NULL THEN
        RETURN NULL;
    END IF;
    IF (v_tenant.disabled_at IS NOT NULL) <> p_disabled THEN
        UPDATE tenants SET disabled_at = CASE WHEN p_disabled THEN now() END, updated_at = now()
        WHERE tenant_id = p_tenant RETURNING * INTO v_tenant;
        PERFORM note_tenant_change(
            p_tenant, p_by, CASE WHEN p_disabled THEN 'disabled' ELSE 'enabled' END, NULL, NULL);
    END IF;
    RETURN tenant_resource(v_tenant);
END
$$;

-- NULL: no such tenant.
CREATE FUNCTION create_api_key(
    p_tenant text, p_sha256 text, p_scopes text[], p_label text, p_expires_us bigint, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_key api_keys;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO api_keys (key_sha256, tenant_id, scopes, label, expires_at, created_by)
    SELECT p_sha256, tenant_id, p_scopes, p_label, from_unix_us(p_expires_us), p_by
    FROM tenants WHERE tenant_id = p_tenant RETURNING * INTO v_key;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM note_tenant_change(p_tenant, p_by, 'key_created', NULL, api_key_resource(v_key));
    RETURN api_key_resource(v_key);
END
$$;

-- The newest first.
CREATE FUNCTION list_api_keys(p_tenant text) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT api_key_resource(k) FROM api_keys AS k WHERE k.tenant_id = p_tenant
        ORDER BY k.created_at DESC, k.key_sha256;
END
$$;

-- Repeating it changes nothing. No row: no such key, or not p_tenant's; with NULL any tenant's.
CREATE FUNCTION revoke_api_key(p_tenant text, p_id text, p_by text) RETURNS TABLE (sha256 text, key jsonb)
LANGUAGE plpgsql ROWS 1 SET search_path = public, pg_temp AS $$
DECLARE
    v_key api_keys;
    v_revoked boolean;
BEGIN
    IF p_tenant IS NOT NULL THEN
        PERFORM set_config('switchboard.tenant', p_tenant, true);
    END IF;
    SELECT * INTO v_key FROM api_keys
    WHERE api_key_id(key_sha256) = p_id AND (p_tenant IS NULL OR tenant_id = p_tenant) FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_revoked := v_key.revoked_at IS NOT NULL;
    IF NOT v_revoked THEN
        UPDATE api_keys SET revoked_at = now() WHERE key_sha256 = v_key.key_sha256 RETURNING * INTO v_key;
        PERFORM note_tenant_change(v_key.tenant_id, p_by, 'key_revoked', NULL, api_key_resource(v_key));
    END IF;
    RETURN QUERY SELECT v_key.key_sha256, api_key_resource(v_key);
END
$$;

-- Hashes of a tenant's keys that can still be in a cache.
CREATE FUNCTION live_key_hashes(p_tenant text) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY SELECT key_sha256 FROM api_keys WHERE tenant_id = p_tenant AND revoked_at IS NULL;
END
$$;

-- The newest first, before the change p_before or from the last one on.
CREATE FUNCTION list_tenant_changes(p_tenant text, p_before uuid, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT jsonb_build_object(
            'id', c.change_id, 'tenant', c.tenant_id, 'changed_us', to_unix_us(c.changed_at),
            'changed_by', c.changed_by, 'action', c.action, 'before', c.before, 'after', c.after)
        FROM tenant_changes AS c
        WHERE c.tenant_id = p_tenant AND (p_before IS NULL OR c.change_id < p_before)
        ORDER BY c.change_id DESC LIMIT p_limit;
END
$$;

-- As before, with the tenant's settings; and a key ends at its time.
DROP FUNCTION resolve_api_key(text);
CREATE FUNCTION resolve_api_key(p_sha256 text)
RETURNS TABLE (tenant_id text, scopes text[], settings jsonb, settings_version bigint)
LANGUAGE plpgsql ROWS 1 SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_key api_keys;
BEGIN
    PERFORM set_config('switchboard.key_sha256', p_sha256, true);
    SELECT * INTO v_key FROM api_keys
    WHERE key_sha256 = p_sha256 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM set_config('switchboard.tenant', v_key.tenant_id, true);
    RETURN QUERY
        SELECT v_key.tenant_id, v_key.scopes, t.settings, t.settings_version FROM tenants AS t
        WHERE t.tenant_id = v_key.tenant_id AND t.disabled_at IS NULL;
END
$$;

-- The development stack's tenant and key; by the owner. No limits, until somebody sets some.
CREATE FUNCTION upsert_development_key(p_sha256 text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM upsert_tenant_key('dev', 'Development', p_sha256, ARRAY['chat', 'admin', 'operator'], 'development stack');
    UPDATE tenants SET settings = '{"plan": "enterprise", "unlimited": true}'
    WHERE tenant_id = 'dev' AND settings = '{}';
END
$$;
