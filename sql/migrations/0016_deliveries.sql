-- Deliveries that are sent: to callback URLs, to endpoints of a tenant, and (alerts, 0015) to Slack and by e-mail.
--
-- The table is the queue. A row is open until it ends (`delivered`, `failed`, `discarded`):
--   pending   not tried yet            sending  a process is at it, until `lease_until`
--   retrying  failed, to be tried again         unknown  its process vanished while it was sending: sent again
--   parked    failed for so long that the rows behind it in its lane pass; tried again all the same
-- A lane is (target, conversation): a row is sent only when no older one of its lane is open and not parked.
-- A receiver is what fails together, an endpoint or the host of a callback URL: it has the breaker, and a bound on how
-- many requests it is sent at once, so that one that hangs holds up nobody else.

-- Events of these types go to the URL; an empty list is all of them.
CREATE TABLE endpoints (
    tenant_id text NOT NULL,
    endpoint_id uuid NOT NULL DEFAULT uuid7(),
    url text NOT NULL,
    description text NOT NULL DEFAULT '',
    event_types text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    disabled_at timestamptz,
    disabled_why text CHECK (disabled_why IN ('asked', 'gone', 'failing')),
    removed_at timestamptz,
    PRIMARY KEY (tenant_id, endpoint_id),
    CONSTRAINT disabled_says_why CHECK ((disabled_at IS NULL) = (disabled_why IS NULL))
);
SELECT protect_table('endpoints');
REVOKE DELETE ON endpoints FROM switchboard_app;

-- Which signing secrets are good. Not the secrets: each is derived from its name (tenant, owner, serial) and a key that
-- is not in the database. `owner` is an endpoint's id, or `default` for callback URLs, which has serial 1 without a row.
CREATE TABLE signing_secrets (
    tenant_id text NOT NULL,
    owner text NOT NULL,
    serial integer NOT NULL CHECK (serial > 0),
    made_at timestamptz NOT NULL DEFAULT now(),
    retires_at timestamptz,
    PRIMARY KEY (tenant_id, owner, serial)
);
SELECT protect_table('signing_secrets');
REVOKE DELETE ON signing_secrets FROM switchboard_app;

CREATE TABLE receivers (
    tenant_id text NOT NULL,
    receiver text NOT NULL,
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- since the last success
    failing_since timestamptz,
    open_until timestamptz,  -- the breaker: nothing is sent until then
    PRIMARY KEY (tenant_id, receiver),
    CONSTRAINT failing_counts CHECK ((failures = 0) = (failing_since IS NULL))
);
SELECT protect_table('receivers');

ALTER TABLE deliveries
    ALTER COLUMN conversation_id DROP NOT NULL,
    ALTER COLUMN job_id DROP NOT NULL,
    ALTER COLUMN run DROP NOT NULL,
    ADD COLUMN kind text NOT NULL DEFAULT 'webhook' CHECK (kind IN ('webhook', 'slack', 'email')),
    ADD COLUMN endpoint_id uuid,
    ADD COLUMN receiver text NOT NULL GENERATED ALWAYS AS (CASE
        WHEN endpoint_id IS NOT NULL THEN 'endpoint:' || endpoint_id
        WHEN kind = 'webhook' THEN 'host:' || md5(lower(substring(url FROM '^[^:]+://[^/?#]+')))
        ELSE kind || ':' || md5(url) END) STORED,
    ADD COLUMN lane text NOT NULL GENERATED ALWAYS AS (
        md5(kind || ' ' || coalesce(endpoint_id::text, url) || ' ' || coalesce(conversation_id, ''))) STORED,
    ADD COLUMN failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    ADD COLUMN first_failed_at timestamptz,
    ADD COLUMN parked_at timestamptz,
    ADD COLUMN lease_until timestamptz,
    ADD COLUMN last_error jsonb CHECK (last_error ? 'code' AND last_error ? 'message'),
    DROP CONSTRAINT deliveries_state_check,
    ADD CONSTRAINT deliveries_state CHECK (state IN (
        'pending', 'sending', 'retrying', 'unknown', 'parked', 'delivered', 'failed', 'discarded')),
    ADD CONSTRAINT sending_has_a_lease CHECK ((state = 'sending') = (lease_until IS NOT NULL)),
    ADD CONSTRAINT parked_says_since_when CHECK (state <> 'parked' OR parked_at IS NOT NULL),
    ADD CONSTRAINT a_jobs_event_names_it CHECK (
        event_type NOT LIKE 'job.%' OR (conversation_id IS NOT NULL AND job_id IS NOT NULL AND run IS NOT NULL)),
    DROP CONSTRAINT deliveries_tenant_id_job_id_run_event_type_key;
-- One event of one run goes to one target once.
CREATE UNIQUE INDEX deliveries_once ON deliveries (tenant_id, job_id, run, event_type, lane) WHERE job_id IS NOT NULL;

-- Nothing has been sending them: what is older than a schedule takes would be given up by now.
UPDATE deliveries SET state = 'discarded', finished_at = now()
WHERE state = 'pending' AND created_at < now() - interval '28 hours';

DROP INDEX deliveries_due;
DROP INDEX deliveries_lane;
CREATE INDEX deliveries_open ON deliveries (tenant_id, receiver, due_at)
    WHERE state IN ('pending', 'retrying', 'unknown', 'parked');
CREATE INDEX deliveries_sending ON deliveries (tenant_id, receiver) WHERE state = 'sending';
CREATE INDEX deliveries_lane ON deliveries (tenant_id, lane, sequence, delivery_id)
    WHERE state IN ('pending', 'retrying', 'unknown', 'sending') AND parked_at IS NULL;
CREATE INDEX deliveries_patience ON deliveries (first_failed_at)
    WHERE state IN ('retrying', 'unknown') AND parked_at IS NULL;
CREATE INDEX deliveries_tenant ON deliveries (tenant_id, delivery_id);

-- The log: one row for each request that was begun and is over.
CREATE TABLE delivery_attempts (
    tenant_id text NOT NULL,
    delivery_id uuid NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    attempt integer NOT NULL CHECK (attempt > 0),
    ended_at timestamptz NOT NULL DEFAULT now(),
    outcome text NOT NULL CHECK (outcome IN ('delivered', 'failed', 'unknown')),
    status integer,
    code text,
    message text,
    latency_ms double precision CHECK (latency_ms >= 0),
    PRIMARY KEY (tenant_id, delivery_id, attempt)
);
SELECT protect_table('delivery_attempts');
REVOKE UPDATE, DELETE ON delivery_attempts FROM switchboard_app;

-- --- owing: written with a job's end ----------------------------------------------------------------------------------

-- Endpoints that want an event. The tenant must be set. These two bind no search_path, so that they are inlined into
-- the turn's commit, which binds it.
CREATE FUNCTION endpoints_for(p_tenant text, p_event text) RETURNS SETOF endpoints
LANGUAGE sql STABLE AS $$
    SELECT * FROM endpoints
    WHERE tenant_id = p_tenant AND disabled_at IS NULL AND removed_at IS NULL
        AND (event_types = '{}' OR p_event = ANY (event_types))
$$;

-- Whether somebody is to hear of a job's end: its caller, or an endpoint. The tenant must be set.
CREATE FUNCTION is_owed(p_tenant text, p_turn jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_turn->>'callback_url' IS NOT NULL
        OR EXISTS (SELECT FROM endpoints_for(p_tenant, 'job.' || (p_turn->>'state')))
$$;

-- As before (0008), endpoints included; so it reads the tenant that its callers have set.
CREATE OR REPLACE FUNCTION owed_for_taken_in(p_turn jsonb) RETURNS TABLE (place bigint, job jsonb)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT row_number() OVER (ORDER BY given.place) - 1, given.job
    FROM jsonb_array_elements(coalesce(nullif(p_turn->'taken_in', 'null'), '[]')) WITH ORDINALITY AS given(job, place)
    WHERE given.job->>'state' <> 'merged' AND is_owed(current_setting('switchboard.tenant', true), given.job)
$$;

-- As before (0015), with a place for the event whenever anybody is to hear of it; NULL when nobody is.
CREATE OR REPLACE FUNCTION write_conversation(p_job jobs, p_turn jsonb, p_taken_in jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_asks boolean := true;
    v_before integer := 0;
    v_owed integer := is_owed(p_job.tenant_id, p_turn)::integer;
    v_places record;
BEGIN
    IF p_taken_in IS NOT NULL THEN
        v_owed := v_owed + (SELECT count(*) FROM owed_for_taken_in(p_turn));
        SELECT count(*) INTO v_before FROM taken_in(p_job.tenant_id, p_turn);
    END IF;
    IF p_job.state <> 'rejected' THEN
        IF p_job.run > 1 THEN  -- an earlier run may have asked already
            v_asks := NOT EXISTS (
                SELECT FROM messages
                WHERE tenant_id = p_job.tenant_id AND job_id = p_job.job_id AND role = 'user');
        END IF;
        v_places := take_places(
            p_job.tenant_id, p_job.conversation_id, p_job.user_id,
            v_before + v_asks::integer + (p_job.reply IS NOT NULL AND p_job.degraded IS NULL)::integer,
            v_owed, p_job.created_at, p_job.finished_at);
        IF v_places.first_seq IS NOT NULL THEN
            PERFORM write_messages(p_job, p_turn, v_before, v_asks, v_places.first_seq);
            RETURN CASE WHEN v_owed > 0 THEN v_places.first_delivery END;
        ELSIF p_job.state = 'succeeded' THEN
            RAISE EXCEPTION 'the conversation belongs to another user' USING ERRCODE = 'SB001';
        END IF;
    END IF;
    IF v_owed > 0 THEN
        v_places := take_places(
            p_job.tenant_id, p_job.conversation_id, NULL, 0, v_owed, p_job.created_at, p_job.finished_at);
        RETURN v_places.first_delivery;
    END IF;
    RETURN NULL;
END
$$;

-- As before (0012); whether events are owed is what `write_conversation` says.
CREATE OR REPLACE FUNCTION commit_turn(p_tenant text, p_turn jsonb, OUT won boolean, OUT record jsonb)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_taken_in jsonb := nullif(nullif(p_turn->'taken_in', 'null'), '[]');
    v_calls jsonb := coalesce(nullif(p_turn->'calls', 'null'), '[]');
    -- This job was never claimed before: no other claim is registered, and the books know no call of it but these.
    v_first boolean := coalesce(p_turn->>'run' = '1' AND p_turn->>'claim' = p_turn->>'started_us', false);
    v_job jobs;
    v_sequence bigint;
    v_new record;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    v_job := insert_ended_job(p_tenant, p_turn);
    won := v_job.job_id IS NOT NULL;
    IF won THEN
        IF v_taken_in IS NOT NULL THEN
            PERFORM insert_ended_job(p_tenant, job), insert_dead_job(p_tenant, job)
            FROM jsonb_array_elements(v_taken_in) AS job;
        END IF;
        v_sequence := write_conversation(v_job, p_turn, v_taken_in);
        IF v_job.state <> 'succeeded' THEN
            PERFORM insert_dead_job(p_tenant, p_turn);
        END IF;
        IF NOT v_first THEN  -- the row of its end is the fence from now on
            DELETE FROM job_claims WHERE tenant_id = p_tenant AND job_id = v_job.job_id AND run = v_job.run;
        END IF;
    END IF;
    v_new := add_llm_calls(
        p_tenant,
        jsonb_build_object(
            'job_id', p_turn->'job_id', 'run', p_turn->'run', 'agent', p_turn->'agent',
            'conversation_id', p_turn->'conversation_id', 'user_id', p_turn->'user_id',
            'domain', p_turn->'domain', 'feature', p_turn->'feature'),
        v_calls);
    IF won AND v_first AND v_new.added = jsonb_array_length(v_calls) THEN
        record := job_record_from(v_job, v_job.attempts, v_new.usage, v_new.cost_nano_usd);
    ELSE
        record := job_record_of(p_tenant, (p_turn->>'job_id')::uuid, (p_turn->>'run')::integer);
    END IF;
    IF v_sequence IS NOT NULL THEN
        PERFORM insert_deliveries(p_tenant, p_turn, v_taken_in, v_sequence, record);
    END IF;
END
$$;

-- The event owed to the caller's callback URL and to every endpoint that wants it, under one sequence; its body is the
-- record as it stands after this transaction. The conversation is ours (`take_places`).
CREATE OR REPLACE FUNCTION insert_delivery(p_tenant text, p_turn jsonb, p_sequence bigint, p_record jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_event constant text := 'job.' || (p_turn->>'state');
    v_conversation constant text := p_turn->>'conversation_id';
BEGIN
    INSERT INTO deliveries (tenant_id, conversation_id, job_id, run, url, endpoint_id, event_type, sequence, body)
    SELECT p_tenant, v_conversation, (p_turn->>'job_id')::uuid, (p_turn->>'run')::integer, target.url,
        target.endpoint_id, v_event, p_sequence, p_record
    FROM (
        SELECT p_turn->>'callback_url' AS url, NULL::uuid AS endpoint_id WHERE p_turn->>'callback_url' IS NOT NULL
        UNION ALL SELECT url, endpoint_id FROM endpoints_for(p_tenant, v_event)) AS target;
    IF FOUND THEN
        -- An endpoint that was made after the places were taken: no two events may have one number.
        UPDATE conversations SET next_delivery = p_sequence + 1
        WHERE tenant_id = p_tenant AND conversation_id = v_conversation AND next_delivery <= p_sequence;
    END IF;
END
$$;

-- --- sending: by switchboard_ops ----------------------------------------------------------------------------------------

-- Rows whose process vanished while it was sending. Whether the receiver has the event nobody knows: it is sent again,
-- under the same id.
CREATE FUNCTION recover_deliveries(p_most integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_found integer;
BEGIN
    WITH lapsed AS (
        UPDATE deliveries AS d SET
            lease_until = NULL, failures = d.failures + 1, first_failed_at = coalesce(d.first_failed_at, now()),
            due_at = now(), last_error = jsonb_build_object(
                'code', 'vanished', 'message', 'the process that was sending it ended; it may have arrived'),
            state = CASE WHEN d.failures + 1 >= p_most THEN 'failed' ELSE 'unknown' END,
            finished_at = CASE WHEN d.failures + 1 >= p_most THEN now() END
        WHERE d.state = 'sending' AND d.lease_until < now()
        RETURNING d.tenant_id, d.delivery_id, d.attempts)
    INSERT INTO delivery_attempts (tenant_id, delivery_id, attempt, outcome, code)
    SELECT tenant_id, delivery_id, attempts, 'unknown', 'vanished' FROM lapsed;
    GET DIAGNOSTICS v_found = ROW_COUNT;
    RETURN v_found;
END
$$;

-- Lanes whose head has failed for p_patience_s: those behind it may pass.
CREATE FUNCTION park_deliveries(p_patience_s integer) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE deliveries SET state = 'parked', parked_at = now()
    WHERE state IN ('retrying', 'unknown') AND parked_at IS NULL
        AND first_failed_at < now() - p_patience_s * interval '1 second'
$$;

-- Due rows that may be sent now, the most overdue first, at most p_slots and for one receiver at most p_each under way
-- at once, in the whole deployment; one while its breaker is half open. They turn `sending`, ours for p_lease_s.
-- Claims take turns (they last a millisecond), so that the bound holds and no two claim one row. Receivers are found
-- by hopping through the index: rows piled up for one of them are not looked at to find the others.
CREATE FUNCTION claim_deliveries(p_slots integer, p_each integer, p_lease_s integer, p_trips integer)
RETURNS SETOF jsonb LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('switchboard.claim_deliveries', 0));
    RETURN QUERY
    WITH RECURSIVE waiting AS (
        (SELECT d.tenant_id, d.receiver FROM deliveries AS d
         WHERE d.state IN ('pending', 'retrying', 'unknown', 'parked') ORDER BY d.tenant_id, d.receiver LIMIT 1)
        UNION ALL
        SELECT following.* FROM waiting AS w CROSS JOIN LATERAL (
            SELECT d.tenant_id, d.receiver FROM deliveries AS d
            WHERE d.state IN ('pending', 'retrying', 'unknown', 'parked')
                AND (d.tenant_id, d.receiver) > (w.tenant_id, w.receiver)
            ORDER BY d.tenant_id, d.receiver LIMIT 1) AS following
    ), room AS (
        SELECT w.tenant_id, w.receiver,
            CASE WHEN coalesce(r.failures, 0) >= p_trips THEN 1 ELSE p_each END - (
                SELECT count(*) FROM deliveries AS d
                WHERE d.tenant_id = w.tenant_id AND d.receiver = w.receiver AND d.state = 'sending') AS free
        FROM waiting AS w LEFT JOIN receivers AS r USING (tenant_id, receiver)
        WHERE r.open_until IS NULL OR r.open_until <= now()
    ), chosen AS (
        SELECT due.delivery_id FROM room CROSS JOIN LATERAL (
            SELECT d.delivery_id, d.due_at FROM deliveries AS d
            WHERE d.tenant_id = room.tenant_id AND d.receiver = room.receiver
                AND d.state IN ('pending', 'retrying', 'unknown', 'parked') AND d.due_at <= now()
                AND (d.parked_at IS NOT NULL OR NOT EXISTS (
                    SELECT FROM deliveries AS older
                    WHERE older.tenant_id = d.tenant_id AND older.lane = d.lane AND older.parked_at IS NULL
                        AND older.state IN ('pending', 'retrying', 'unknown', 'sending')
                        AND (older.sequence, older.delivery_id) < (d.sequence, d.delivery_id)))
            ORDER BY d.due_at LIMIT greatest(room.free, 0)) AS due
        ORDER BY due.due_at LIMIT p_slots
    ), claimed AS (
        UPDATE deliveries AS d SET
            state = 'sending', attempts = d.attempts + 1,
            -- SMTP is a conversation of many steps, each with its own time
            lease_until = now() + p_lease_s * CASE d.kind WHEN 'email' THEN 4 ELSE 1 END * interval '1 second'
        FROM chosen WHERE d.delivery_id = chosen.delivery_id
            AND d.state IN ('pending', 'retrying', 'unknown', 'parked')
        RETURNING d.*
    )
    SELECT jsonb_build_object(
        'id', c.delivery_id, 'tenant', c.tenant_id, 'kind', c.kind, 'url', coalesce(e.url, c.url),
        'endpoint', c.endpoint_id, 'closed', e.disabled_at IS NOT NULL OR e.removed_at IS NOT NULL,
        'event_type', c.event_type, 'sequence', c.sequence, 'body', c.body, 'attempt', c.attempts,
        'failures', c.failures, 'created_us', to_unix_us(c.created_at),
        'secrets', signing_serials(c.tenant_id, coalesce(c.endpoint_id::text, 'default')))
    FROM claimed AS c LEFT JOIN endpoints AS e USING (tenant_id, endpoint_id);
END
$$;

-- Serials of the secrets that are good now, the newest first.
CREATE FUNCTION signing_serials(p_tenant text, p_owner text) RETURNS integer[]
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce(array_agg(serial ORDER BY serial DESC), '{1}') FROM signing_secrets
    WHERE tenant_id = p_tenant AND owner = p_owner AND (retires_at IS NULL OR retires_at > now())
$$;

-- What became of an attempt: {delivered, retry_us (NULL: not again), blame (the receiver's fault), gone, status, code,
-- message, latency_ms}. False when the row is not that attempt's any more. Its breaker opens after p_trips failures in
-- a row, for p_pause_s, doubling, at most five minutes. The endpoint that went away (410), or has failed for
-- p_give_up_s without one success, is disabled.
CREATE FUNCTION end_delivery_attempt(
    p_tenant text, p_delivery uuid, p_attempt integer, p_outcome jsonb, p_trips integer, p_pause_s integer,
    p_give_up_s integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    o record;
    v_row deliveries;
    v_error jsonb;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO o FROM jsonb_to_record(p_outcome) AS given(
        delivered boolean, retry_us bigint, blame boolean, gone boolean, status integer, code text, message text,
        latency_ms double precision);
    v_error := CASE WHEN NOT o.delivered THEN
        jsonb_strip_nulls(jsonb_build_object('code', o.code, 'message', o.message, 'status', o.status)) END;
    UPDATE deliveries AS d SET
        state = CASE WHEN o.delivered THEN 'delivered' WHEN o.retry_us IS NULL THEN 'failed'
            WHEN d.parked_at IS NOT NULL THEN 'parked' ELSE 'retrying' END,
        finished_at = CASE WHEN o.delivered OR o.retry_us IS NULL THEN now() END,
        due_at = coalesce(from_unix_us(o.retry_us), d.due_at),
        failures = d.failures + (NOT o.delivered)::integer,
        first_failed_at = CASE WHEN o.delivered THEN d.first_failed_at ELSE coalesce(d.first_failed_at, now()) END,
        lease_until = NULL, last_error = v_error
    WHERE d.tenant_id = p_tenant AND d.delivery_id = p_delivery AND d.attempts = p_attempt
        AND d.state IN ('sending', 'unknown')
    RETURNING * INTO v_row;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO delivery_attempts (tenant_id, delivery_id, attempt, outcome, status, code, message, latency_ms)
    VALUES (p_tenant, p_delivery, p_attempt, CASE WHEN o.delivered THEN 'delivered' ELSE 'failed' END,
        o.status, o.code, o.message, o.latency_ms)
    ON CONFLICT (tenant_id, delivery_id, attempt) DO NOTHING;  -- its lease had lapsed: the log says unknown
    PERFORM note_receiver(p_tenant, v_row.receiver, o.delivered, o.blame, p_trips, p_pause_s);
    IF v_row.endpoint_id IS NOT NULL AND NOT o.delivered AND (o.gone OR EXISTS (
            SELECT FROM receivers AS r WHERE r.tenant_id = p_tenant AND r.receiver = v_row.receiver
                AND r.failing_since < now() - p_give_up_s * interval '1 second')) THEN
        PERFORM disable_endpoint(
            p_tenant, v_row.endpoint_id, CASE WHEN o.gone THEN 'gone' ELSE 'failing' END, v_error);
    END IF;
    RETURN true;
END
$$;

-- One more success or failure of a receiver. A success closes its breaker.
CREATE FUNCTION note_receiver(
    p_tenant text, p_receiver text, p_delivered boolean, p_blame boolean, p_trips integer, p_pause_s integer)
RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF p_delivered THEN
        UPDATE receivers SET failures = 0, failing_since = NULL, open_until = NULL
        WHERE tenant_id = p_tenant AND receiver = p_receiver AND failures > 0;
    ELSIF p_blame THEN
        INSERT INTO receivers AS r (tenant_id, receiver, failures, failing_since)
        VALUES (p_tenant, p_receiver, 1, now())
        ON CONFLICT (tenant_id, receiver) DO UPDATE SET
            failures = r.failures + 1,
            failing_since = coalesce(r.failing_since, now()),
            open_until = CASE WHEN r.failures + 1 >= p_trips THEN
                now() + least(p_pause_s * 2 ^ least(r.failures + 1 - p_trips, 10), 300) * interval '1 second' END;
    END IF;
END
$$;

-- --- endpoints and their secrets: people's side ---------------------------------------------------------------------------

CREATE FUNCTION endpoint_resource(e endpoints) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', e.endpoint_id, 'tenant', e.tenant_id, 'url', e.url, 'description', e.description,
        'event_types', e.event_types, 'created_us', to_unix_us(e.created_at), 'created_by', e.created_by,
        'disabled_us', to_unix_us(e.disabled_at), 'disabled_why', e.disabled_why,
        'failures', coalesce(r.failures, 0), 'failing_since_us', to_unix_us(r.failing_since),
        'paused_until_us', to_unix_us(r.open_until),
        'secrets', cardinality(signing_serials(e.tenant_id, e.endpoint_id::text)))
    FROM (SELECT) AS one LEFT JOIN receivers AS r
        ON r.tenant_id = e.tenant_id AND r.receiver = 'endpoint:' || e.endpoint_id
$$;

-- The newest first: p_tenant's, or with NULL everybody's; one of them with p_endpoint.
CREATE FUNCTION list_endpoints(p_tenant text, p_endpoint uuid) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN QUERY
        SELECT endpoint_resource(e) FROM endpoints AS e
        WHERE (p_tenant IS NULL OR e.tenant_id = p_tenant) AND (p_endpoint IS NULL OR e.endpoint_id = p_endpoint)
            AND e.removed_at IS NULL
        ORDER BY e.endpoint_id DESC;
END
$$;

-- NULL: there is no such tenant, or it has p_most already.
CREATE FUNCTION create_endpoint(
    p_tenant text, p_url text, p_description text, p_event_types text[], p_by text, p_most integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_new endpoints;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO endpoints (tenant_id, url, description, event_types, created_by)
    SELECT tenant_id, p_url, p_description, p_event_types, p_by FROM tenants WHERE tenant_id = p_tenant
        AND (SELECT count(*) FROM endpoints WHERE tenant_id = p_tenant AND removed_at IS NULL) < p_most
    RETURNING * INTO v_new;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO signing_secrets (tenant_id, owner, serial) VALUES (p_tenant, v_new.endpoint_id::text, 1);
    RETURN endpoint_resource(v_new);
END
$$;

-- Changes what p_change names (url, description, event_types, disabled). Enabling it forgives what it has failed.
-- NULL: no such endpoint.
CREATE FUNCTION change_endpoint(p_tenant text, p_endpoint uuid, p_change jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_new endpoints;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE endpoints AS e SET
        url = coalesce(p_change->>'url', e.url),
        description = coalesce(p_change->>'description', e.description),
        event_types = CASE WHEN p_change ? 'event_types'
            THEN ARRAY(SELECT jsonb_array_elements_text(p_change->'event_types')) ELSE e.event_types END,
        disabled_at = CASE (p_change->>'disabled')::boolean
            WHEN true THEN coalesce(e.disabled_at, now()) WHEN false THEN NULL ELSE e.disabled_at END,
        disabled_why = CASE (p_change->>'disabled')::boolean
            WHEN true THEN coalesce(e.disabled_why, 'asked') WHEN false THEN NULL ELSE e.disabled_why END
    WHERE e.tenant_id = p_tenant AND e.endpoint_id = p_endpoint AND e.removed_at IS NULL
    RETURNING * INTO v_new;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF p_change->>'disabled' = 'false' OR p_change ? 'url' THEN
        UPDATE receivers SET failures = 0, failing_since = NULL, open_until = NULL
        WHERE tenant_id = p_tenant AND receiver = 'endpoint:' || p_endpoint;
    END IF;
    RETURN endpoint_resource(v_new);
END
$$;

-- False: no such endpoint. Its open deliveries fail when their turn comes.
CREATE FUNCTION remove_endpoint(p_tenant text, p_endpoint uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE endpoints SET removed_at = now()
    WHERE tenant_id = p_tenant AND endpoint_id = p_endpoint AND removed_at IS NULL;
    RETURN FOUND;
END
$$;

-- A new secret; the ones before stay good for p_overlap_s. The new serial, or NULL: no such endpoint (or tenant).
-- The first one for callback URLs is the one they have been signed with all along. `*`: the deployment's own alerts.
CREATE FUNCTION rotate_signing_secret(p_tenant text, p_endpoint uuid, p_overlap_s integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_owner constant text := coalesce(p_endpoint::text, 'default');
    v_serial integer;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM pg_advisory_xact_lock(hashtextextended('switchboard.rotate ' || p_tenant || v_owner, 0));
    IF p_endpoint IS NULL THEN
        PERFORM FROM (SELECT FROM tenants WHERE tenant_id = p_tenant UNION ALL SELECT WHERE p_tenant = '*') AS known;
    ELSE
        PERFORM FROM endpoints WHERE tenant_id = p_tenant AND endpoint_id = p_endpoint AND removed_at IS NULL;
    END IF;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE signing_secrets SET retires_at = least(retires_at, now() + p_overlap_s * interval '1 second')
    WHERE tenant_id = p_tenant AND owner = v_owner;
    INSERT INTO signing_secrets (tenant_id, owner, serial)
    SELECT p_tenant, v_owner, coalesce(max(serial), 0) + 1 FROM signing_secrets
    WHERE tenant_id = p_tenant AND owner = v_owner RETURNING serial INTO v_serial;
    RETURN v_serial;
END
$$;

-- --- deliveries: people's side --------------------------------------------------------------------------------------------

CREATE FUNCTION delivery_summary(d deliveries) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', d.delivery_id, 'tenant', d.tenant_id, 'kind', d.kind, 'event_type', d.event_type, 'url', d.url,
        'endpoint_id', d.endpoint_id, 'job_id', d.job_id, 'run', d.run, 'conversation_id', d.conversation_id,
        'sequence', d.sequence, 'state', d.state, 'attempts', d.attempts, 'due_us', to_unix_us(d.due_at),
        'created_us', to_unix_us(d.created_at), 'finished_us', to_unix_us(d.finished_at), 'error', d.last_error)
$$;

-- The newest first, before p_before; p_filter {tenant, state, endpoint_id, job_id}, each optional: without a tenant all,
-- which only switchboard_ops sees.
CREATE FUNCTION list_deliveries(p_filter jsonb, p_before uuid, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_filter->>'tenant', true);
    RETURN QUERY
        SELECT delivery_summary(d) FROM deliveries AS d
        WHERE (p_filter->>'tenant' IS NULL OR d.tenant_id = p_filter->>'tenant')
            AND (p_filter->>'state' IS NULL OR d.state = p_filter->>'state')
            AND (p_filter->>'endpoint_id' IS NULL OR d.endpoint_id = (p_filter->>'endpoint_id')::uuid)
            AND (p_filter->>'job_id' IS NULL OR d.job_id = (p_filter->>'job_id')::uuid)
            AND (p_before IS NULL OR d.delivery_id < p_before)
        ORDER BY d.delivery_id DESC LIMIT p_limit;
END
$$;

-- One with its body and its log; NULL: no such delivery.
CREATE FUNCTION delivery_detail(p_tenant text, p_delivery uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (
        SELECT delivery_summary(d) || jsonb_build_object('body', d.body, 'log', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'attempt', a.attempt, 'ended_us', to_unix_us(a.ended_at), 'outcome', a.outcome, 'status', a.status,
                'code', a.code, 'message', a.message, 'latency_ms', a.latency_ms) ORDER BY a.attempt)
            FROM delivery_attempts AS a WHERE a.tenant_id = d.tenant_id AND a.delivery_id = d.delivery_id), '[]'))
        FROM deliveries AS d
        WHERE d.delivery_id = p_delivery AND (p_tenant IS NULL OR d.tenant_id = p_tenant));
END
$$;

-- Sends again what has ended, under the same id, from the start of its schedule, and what waits at once. It passes
-- those of its lane: their order is over. `sending` when it is under way; NULL: no such delivery.
CREATE FUNCTION replay_delivery(p_tenant text, p_delivery uuid) RETURNS text
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_row deliveries;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_row FROM deliveries
    WHERE delivery_id = p_delivery AND (p_tenant IS NULL OR tenant_id = p_tenant) FOR UPDATE;
    IF NOT FOUND OR v_row.state = 'sending' THEN
        RETURN v_row.state;
    END IF;
    UPDATE deliveries SET
        state = CASE WHEN finished_at IS NULL AND parked_at IS NULL THEN state ELSE 'parked' END,
        parked_at = CASE WHEN finished_at IS NULL AND parked_at IS NULL THEN NULL ELSE now() END,
        failures = 0, first_failed_at = NULL, due_at = now(), finished_at = NULL
    WHERE delivery_id = p_delivery AND tenant_id = v_row.tenant_id;
    UPDATE receivers SET open_until = NULL WHERE tenant_id = v_row.tenant_id AND receiver = v_row.receiver;
    RETURN 'queued';
END
$$;
