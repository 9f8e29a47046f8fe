-- name: resolve_api_key
-- Tenant, its settings (JSON) and scopes of a valid key, else no row: $1 sha256 of the key in hex.
SELECT tenant_id, scopes, settings, settings_version FROM resolve_api_key($1)

-- name: upsert_tenant_key
-- Gives a tenant a key and makes the tenant if it is new: $1 tenant, $2 name, $3 sha256, $4 scopes, $5 label.
SELECT upsert_tenant_key($1, $2, $3, $4, $5)

-- name: upsert_development_key
-- The development stack's tenant `dev` and its key, written by the owner: $1 sha256 of the key in hex.
SELECT upsert_development_key($1)
