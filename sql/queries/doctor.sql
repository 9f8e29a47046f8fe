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

-- name: paused_channels
-- Channels nothing goes out through, and why (a code): the first $1.
SELECT c.tenant_id AS tenant, c.channel_id AS channel, c.kind, r.paused_why->>'code' AS code
FROM receivers AS r JOIN channels AS c ON c.tenant_id = r.tenant_id AND receiver_of_channel(c.channel_id) = r.receiver
WHERE r.paused_why IS NOT NULL ORDER BY r.paused_at LIMIT $1

-- name: sealed_channels
-- Channels with their settings (JSON) and sealed credentials: the $2 after $1.
SELECT tenant_id AS tenant, channel_id AS channel, kind, settings, sealed FROM channels
WHERE channel_id > $1 ORDER BY channel_id LIMIT $2

-- name: disabled_endpoints
-- Endpoints that were disabled because nothing got through, the latest first: the first $1.
SELECT tenant_id AS tenant, endpoint_id AS endpoint, disabled_why AS why FROM endpoints
WHERE disabled_why IN ('gone', 'failing') AND removed_at IS NULL ORDER BY disabled_at DESC LIMIT $1

-- name: alerts_by_mail
-- How many alert rules tell somebody by e-mail.
SELECT count(*) AS rules FROM alerts WHERE rule->'targets' @> '[{"kind": "email"}]'

-- name: late_embeddings_of
-- Texts that wait for their vector of model $1: how many, how many have failed five times or more, and for how many
-- seconds the most overdue waits.
SELECT count(*) AS pending, count(*) FILTER (WHERE attempts >= 5) AS failing,
    greatest(0, coalesce(extract(epoch FROM now() - min(due_at)), 0))::double precision AS overdue_s
FROM memory_pending WHERE model_id = $1

-- name: open_erasures
-- Erasures that are not done, with who it is (sealed), the oldest first: the first $1.
SELECT tenant_id AS tenant, request_id::text AS erasure, sealed FROM erasures
WHERE state <> 'done' ORDER BY requested_at LIMIT $1
