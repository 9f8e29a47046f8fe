-- name: unprotected_tables
-- Tables with a tenant whose row-level security is off, not forced, or without the tenant's policy.
SELECT c.relname AS name FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
    AND NOT (
        c.relrowsecurity AND c.relforcerowsecurity
        AND EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = 'tenant'))
ORDER BY c.relname

-- name: missing_ledger_months
-- Months (UTC, YYYY_MM) of this one and $1 further ones that have no partition of the ledger.
SELECT month FROM (
    SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month', 'YYYY_MM') AS month
    FROM generate_series(0, $1::integer) AS n
) AS months
WHERE to_regclass('public.llm_calls_' || month) IS NULL ORDER BY month

-- name: connection_room
-- Connections the server allows ordinary roles, and how many there are; ours among them as far as they can be seen.
SELECT current_setting('max_connections')::integer
    - current_setting('superuser_reserved_connections')::integer AS allowed,
    count(*) FILTER (WHERE backend_type = 'client backend' OR backend_type IS NULL)::integer AS used
FROM pg_stat_activity

-- name: pgvector_version
-- Version of the installed extension, no row without it.
SELECT extversion AS version FROM pg_extension WHERE extname = 'vector'

-- name: owns_schema
-- Whether this role may change the tables: it owns them or belongs to who does.
SELECT coalesce(
    (SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass('public.jobs')),
    has_schema_privilege('public', 'CREATE')) AS owns
