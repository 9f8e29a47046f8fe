-- Roles, privileges, row-level security as one call, and the two notions of time everything else uses.

CREATE EXTENSION IF NOT EXISTS vector;

-- Roles belong to the server, not to the database: another database may have made them, even at this moment.
-- They get no password here; a role without one cannot log in where passwords are asked for.
DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['switchboard_app', 'switchboard_ops'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS', v_role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- made by a migration of another database a moment ago
            END;
        END IF;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA public TO switchboard_app, switchboard_ops;
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO switchboard_app, switchboard_ops;
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO switchboard_app, switchboard_ops;
GRANT SELECT ON schema_migrations TO switchboard_app, switchboard_ops;

-- Row-level security of a table with tenant_id. Forced, so the owner is bound by it too:
--   everyone   the tenant named by `switchboard.tenant`, which functions set for their own transaction;
--              unset it is NULL, after a transaction '', and neither is a tenant
--   ops        all tenants
--   the owner  all tenants while `switchboard.migrating` is on, which sql/migrate.py sets per transaction. It opens
--              nothing: the owner could drop the policies as well.
CREATE FUNCTION protect_table(p_table regclass) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', p_table);
    EXECUTE format(
        'CREATE POLICY tenant ON %s USING (tenant_id = current_setting(''switchboard.tenant'', true))', p_table);
    EXECUTE format('CREATE POLICY ops ON %s TO switchboard_ops USING (true)', p_table);
    EXECUTE format(
        'CREATE POLICY migrations ON %s TO CURRENT_USER USING (current_setting(''switchboard.migrating'', true) = ''on'')',
        p_table);
END
$$;

-- Exact both ways: an interval of whole microseconds is an integer, and the factor is exact in a double up to 2^53
-- (year 2255). STABLE, not IMMUTABLE, because the operators inside are; only so can the planner inline them.
CREATE FUNCTION from_unix_us(p_us bigint) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT timestamptz 'epoch' + p_us * interval '1 microsecond'
$$;

CREATE FUNCTION to_unix_us(p_moment timestamptz) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM p_moment) * 1000000)::bigint
$$;

-- The smallest UUIDv7 of a millisecond: ids made from then on are >= it.
CREATE FUNCTION uuid7_floor(p_moment timestamptz) RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM p_moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- A UUIDv7 (RFC 9562 §5.7): a random v4 whose first 48 bits become Unix milliseconds and whose version turns 4 -> 7.
-- PostgreSQL has its own from version 18 on; we support 15.
CREATE FUNCTION uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;
