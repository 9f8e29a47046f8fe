-- name: list_tenants
-- Tenants (JSON) by id: $1 this one only or NULL for all, $2 the id before the page or NULL, $3 limit.
SELECT tenant FROM list_tenants($1, $2, $3) AS tenant

-- name: create_tenant
-- The new tenant (JSON), NULL when the id is taken: $1 id, $2 name, $3 settings (JSON), $4 by whom.
SELECT create_tenant($1, $2, $3, $4) AS tenant

-- name: change_tenant
-- $1 id, $2 the version that is replaced, $3 name, $4 settings (JSON), $5 by whom. Tenant (JSON) is NULL when unknown.
SELECT stale, tenant FROM change_tenant($1, $2, $3, $4, $5)

-- name: switch_tenant
-- The tenant (JSON) or NULL: $1 id, $2 whether it is to be disabled, $3 by whom.
SELECT switch_tenant($1, $2, $3) AS tenant

-- name: list_tenant_changes
-- Who changed what (JSON), the newest first: $1 tenant, $2 the change before the page or NULL, $3 limit.
SELECT change FROM list_tenant_changes($1, $2, $3) AS change

-- name: create_api_key
-- The key's row (JSON) or NULL: $1 tenant, $2 sha256, $3 scopes, $4 label, $5 end (Unix us) or NULL, $6 by whom.
SELECT create_api_key($1, $2, $3, $4, $5, $6) AS key

-- name: list_api_keys
-- Keys (JSON) of a tenant, the newest first: $1 tenant.
SELECT key FROM list_api_keys($1) AS key

-- name: revoke_api_key
-- Hash and row (JSON), none for an unknown key: $1 tenant or NULL for any, $2 the key's id, $3 by whom.
SELECT sha256, key FROM revoke_api_key($1, $2, $3)

-- name: live_key_hashes
-- Of keys that are not revoked: $1 tenant.
SELECT sha256 FROM live_key_hashes($1) AS sha256
