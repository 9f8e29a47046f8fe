-- Tenants, their API keys and their users.

CREATE TABLE tenants (
    tenant_id text PRIMARY KEY CHECK (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    name text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
SELECT protect_table('tenants');
REVOKE INSERT, UPDATE, DELETE ON tenants FROM switchboard_app;

CREATE TABLE api_keys (
    key_sha256 text PRIMARY KEY CHECK (key_sha256 ~ '^[0-9a-f]{64}$'),
    tenant_id text NOT NULL REFERENCES tenants,
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['chat', 'admin']),
    label text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id);
SELECT protect_table('api_keys');
REVOKE INSERT, UPDATE, DELETE ON api_keys FROM switchboard_app;

-- Resolving a key comes before the tenant is known. Whoever knows a key's hash may read that one row.
CREATE POLICY own_key ON api_keys FOR SELECT USING (key_sha256 = current_setting('switchboard.key_sha256', true));

-- No foreign key to tenants from here on: each would lock the one tenant row of every turn, and a turn that was
-- accepted must be booked even when its tenant was removed meanwhile.
CREATE TABLE users (
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    profile jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(profile) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id)
);
SELECT protect_table('users');

-- Tenant and scopes of an API key; no row when the key is unknown or revoked, or its tenant disabled.
CREATE FUNCTION resolve_api_key(p_sha256 text) RETURNS TABLE (tenant_id text, scopes text[])
LANGUAGE plpgsql ROWS 1 SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_key api_keys;
BEGIN
    PERFORM set_config('switchboard.key_sha256', p_sha256, true);
    SELECT * INTO v_key FROM api_keys WHERE key_sha256 = p_sha256 AND revoked_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM set_config('switchboard.tenant', v_key.tenant_id, true);
    RETURN QUERY
        SELECT v_key.tenant_id, v_key.scopes FROM tenants
        WHERE tenants.tenant_id = v_key.tenant_id AND disabled_at IS NULL;
END
$$;

-- Makes the tenant if it is new, and gives it the key; for roles that may write tenants (owner, ops).
-- A key that was revoked is valid again; a key of another tenant is an error, never moved.
CREATE FUNCTION upsert_tenant_key(p_tenant text, p_name text, p_sha256 text, p_scopes text[], p_label text)
RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO tenants (tenant_id, name) VALUES (p_tenant, p_name) ON CONFLICT (tenant_id) DO NOTHING;
    UPDATE api_keys SET scopes = p_scopes, label = p_label, revoked_at = NULL
    WHERE key_sha256 = p_sha256 AND tenant_id = p_tenant;
    IF NOT FOUND THEN
        INSERT INTO api_keys (key_sha256, tenant_id, scopes, label) VALUES (p_sha256, p_tenant, p_scopes, p_label);
    END IF;
END
$$;
