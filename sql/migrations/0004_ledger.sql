-- The ledger: one row per model call of every attempt. Rows are added, never changed.
--
-- Partitioned by the month inside the UUIDv7 call id, so that the id alone makes a row unique. Reports bound the id
-- (`call_id >= uuid7_floor(...)`): that prunes partitions and is the time column of the index as well.

CREATE TABLE llm_calls (
    call_id uuid NOT NULL CHECK (substr(call_id::text, 15, 1) = '7'),
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    run integer NOT NULL CHECK (run >= 1),
    attempt integer NOT NULL CHECK (attempt >= 0),
    kind text NOT NULL DEFAULT 'chat',
    agent text NOT NULL,
    conversation_id text NOT NULL,
    user_id text,
    domain text,
    feature text,
    provider text NOT NULL,
    model text NOT NULL,  -- the model asked for
    model_used text,      -- the model the provider says it used
    status text NOT NULL, -- ok, error, lost, …
    error_code text,
    estimated boolean NOT NULL DEFAULT false,
    input_tokens bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    cached_tokens bigint NOT NULL DEFAULT 0 CHECK (cached_tokens >= 0),
    cache_write_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_tokens >= 0),
    reasoning_tokens bigint NOT NULL DEFAULT 0 CHECK (reasoning_tokens >= 0),
    cost_nano_usd bigint NOT NULL CHECK (cost_nano_usd >= 0),
    -- the same integer in dollars, made by the database: the two can never disagree
    usd numeric(20, 10) NOT NULL GENERATED ALWAYS AS (cost_nano_usd::numeric / 1000000000) STORED,
    unit_prices jsonb NOT NULL DEFAULT '{}',
    price_version text,
    latency_ms double precision CHECK (latency_ms >= 0),
    ttft_ms double precision CHECK (ttft_ms >= 0),
    request_id text,
    raw_usage jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL,
    PRIMARY KEY (call_id)
) PARTITION BY RANGE (call_id);
CREATE INDEX llm_calls_job ON llm_calls (tenant_id, job_id);
CREATE INDEX llm_calls_time ON llm_calls (tenant_id, call_id);
SELECT protect_table('llm_calls');
REVOKE UPDATE, DELETE ON llm_calls FROM switchboard_app, switchboard_ops;

-- A partition has its own privileges and policies, used when somebody names it directly: nobody but the owner may,
-- or the parent's policies could be walked around.
CREATE FUNCTION seal_partition(p_partition regclass) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, switchboard_app, switchboard_ops', p_partition);
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', p_partition);
    EXECUTE format(
        'CREATE POLICY migrations ON %s TO CURRENT_USER USING (current_setting(''switchboard.migrating'', true) = ''on'')',
        p_partition);
END
$$;

-- Catches ids of months without a partition (a clock far off): a row is never refused for its date.
CREATE TABLE llm_calls_default PARTITION OF llm_calls DEFAULT;
SELECT seal_partition('llm_calls_default');

-- Makes the partition of one month (UTC) if there is none, and moves rows the default partition had caught for it.
CREATE FUNCTION make_llm_calls_month(p_month timestamp) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_name text := 'llm_calls_' || to_char(p_month, 'YYYY_MM');
    v_from uuid := uuid7_floor(p_month AT TIME ZONE 'UTC');
    v_to uuid := uuid7_floor((p_month + interval '1 month') AT TIME ZONE 'UTC');
BEGIN
    IF to_regclass(format('public.%I', v_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE llm_calls INCLUDING ALL)', v_name);
    PERFORM seal_partition(v_name::regclass);
    -- Nobody may add to the default partition between the move and the attach.
    LOCK TABLE llm_calls_default IN ACCESS EXCLUSIVE MODE;
    PERFORM move_llm_calls(v_name, v_from, v_to);
    -- ATTACH locks the ledger against other DDL only; CREATE … PARTITION OF would stop every reader and writer.
    EXECUTE format('ALTER TABLE llm_calls ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_name, v_from, v_to);
    RETURN true;
END
$$;

-- Moves the default partition's rows of an id range into a table that is about to become their partition.
CREATE FUNCTION move_llm_calls(p_into text, p_from uuid, p_to uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_columns text := (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'llm_calls_default'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '');
BEGIN
    EXECUTE format(
        'WITH moved AS (DELETE FROM llm_calls_default WHERE call_id >= $1 AND call_id < $2 RETURNING %1$s) '
        'INSERT INTO %2$I (%1$s) SELECT %1$s FROM moved', v_columns, p_into) USING p_from, p_to;
END
$$;

-- Partitions for p_months months from the month of p_from on; returns how many were made. Migrations and a monthly
-- cron call it. SECURITY DEFINER because only the owner can add partitions; it reads and returns no row, takes no
-- text, and gives up after 5 s rather than hold up the ledger behind a long reader.
CREATE FUNCTION make_llm_calls_partitions(p_from timestamptz DEFAULT now(), p_months integer DEFAULT 3) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    v_first timestamp := date_trunc('month', p_from AT TIME ZONE 'UTC');
    v_made integer := 0;
BEGIN
    IF p_months NOT BETWEEN 1 AND 24 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'between 1 and 24 months at a time';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('switchboard.llm_calls_partitions', 0));
    PERFORM set_config('switchboard.migrating', 'on', true);  -- the caller is not the owner: his policies do not heed it
    FOR v_offset IN 0 .. p_months - 1 LOOP
        v_made := v_made + make_llm_calls_month(v_first + v_offset * interval '1 month')::integer;
    END LOOP;
    RETURN v_made;
END
$$;
REVOKE EXECUTE ON FUNCTION make_llm_calls_partitions(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_llm_calls_partitions(timestamptz, integer) TO switchboard_ops;

SELECT make_llm_calls_partitions(now() - interval '1 month', 5);

-- Adds ledger rows that are not there yet; returns how many. Each call is an object of this table's columns
-- (`started_us` for its start); what it does not name itself comes from p_head.
-- Ordered by id: two transactions that add the same rows wait for each other instead of deadlocking.
CREATE FUNCTION add_llm_calls(p_tenant text, p_head jsonb, p_calls jsonb) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_added integer;
BEGIN
    INSERT INTO llm_calls (
        call_id, tenant_id, job_id, run, attempt, kind, agent, conversation_id, user_id, domain, feature,
        provider, model, model_used, status, error_code, estimated,
        input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
        cost_nano_usd, unit_prices, price_version, latency_ms, ttft_ms, request_id, raw_usage, started_at)
    SELECT
        c.call_id, p_tenant, c.job_id, c.run, c.attempt, coalesce(c.kind, 'chat'), c.agent, c.conversation_id,
        c.user_id, c.domain, c.feature, c.provider, c.model, c.model_used, c.status, c.error_code,
        coalesce(c.estimated, false), coalesce(c.input_tokens, 0), coalesce(c.output_tokens, 0),
        coalesce(c.cached_tokens, 0), coalesce(c.cache_write_tokens, 0), coalesce(c.reasoning_tokens, 0),
        c.cost_nano_usd, coalesce(c.unit_prices, '{}'), c.price_version, c.latency_ms, c.ttft_ms, c.request_id,
        coalesce(c.raw_usage, '{}'), from_unix_us(c.started_us)
    FROM jsonb_array_elements(p_calls) AS given,
        jsonb_to_record(p_head || given) AS c(
            call_id uuid, job_id uuid, run integer, attempt integer, kind text, agent text, conversation_id text,
            user_id text, domain text, feature text, provider text, model text, model_used text, status text,
            error_code text, estimated boolean, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
            cache_write_tokens bigint, reasoning_tokens bigint, cost_nano_usd bigint, unit_prices jsonb,
            price_version text, latency_ms double precision, ttft_ms double precision, request_id text,
            raw_usage jsonb, started_us bigint)
    ORDER BY c.call_id
    ON CONFLICT (call_id) DO NOTHING;
    GET DIAGNOSTICS v_added = ROW_COUNT;
    RETURN v_added;
END
$$;

-- Ledger rows of an attempt that did not end its job: it cost money too. Idempotent; returns how many were new.
-- Each call also names its job_id, run, agent, conversation_id, user_id, domain and feature.
CREATE FUNCTION end_attempt(p_tenant text, p_calls jsonb) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN add_llm_calls(p_tenant, '{}', p_calls);
END
$$;
