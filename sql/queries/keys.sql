-- name: resolve_api_key
-- Tenant, its settings (JSON) and scopes of a valid key, else no row: $1 sha256 of the key in hex.
SELECT tenant_id, scopes, settings, settings_version FROM resolve_api_key($1)

-- name: upsert_development_key
-- The development stack's tenant `dev` and its key, written by the owner: $1 sha256 of the key in hex.
SELECT upsert_development_key($1)
