-- name: applied_migrations
-- Name and checksum of every migration this database has.
SELECT name, sha256 FROM schema_migrations ORDER BY name

-- name: connection_facts
-- What a pool must know about its server and its role before it serves anything.
SELECT
    current_setting('server_version_num')::integer AS server_version,
    current_setting('transaction_isolation') AS isolation,
    role.rolname AS role_name,
    role.rolsuper AS superuser,
    role.rolbypassrls AS bypasses_rls,
    to_regclass('public.schema_migrations') IS NOT NULL AS migrated,
    EXISTS (
        SELECT FROM pg_class
        WHERE oid = to_regclass('public.jobs') AND pg_has_role(current_user, relowner, 'MEMBER')) AS owns_tables
FROM pg_roles AS role WHERE role.rolname = current_user
