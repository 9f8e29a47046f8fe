-- A claim looks only at receivers where something may be sent, and no tenant takes all slots of a process.
--
-- `receivers.look_at` says when a receiver is looked at next: whatever moves one of its rows sets it to now, the look itself
-- to when its next row is due. So receivers that wait for a retry, an answer or an older event of a lane cost a claim
-- nothing. A new row says so itself (`seen`): the turn's commit, which makes it, does not touch the receiver's row, where
-- commits of one tenant would wait for each other.

ALTER TABLE deliveries ADD COLUMN seen boolean NOT NULL DEFAULT false;  -- by a claim; those that are open now are not
CREATE INDEX deliveries_new ON deliveries (delivery_id)
    WHERE NOT seen AND state IN ('pending', 'retrying', 'unknown', 'parked');

ALTER TABLE receivers
    ADD COLUMN look_at timestamptz NOT NULL DEFAULT 'infinity',
    ADD COLUMN ready_at timestamptz NOT NULL GENERATED ALWAYS AS (greatest(look_at, open_until)) STORED;
CREATE INDEX receivers_ready ON receivers (tenant_id, ready_at) WHERE ready_at < 'infinity';

-- Whoever ends, parks, recovers, replays or puts off a row, of whatever version. A claim takes the receiver's row before it
-- reads: either it sees this change, or it has let go of the row when this one writes.
CREATE FUNCTION look_at_receiver() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO receivers AS r (tenant_id, receiver, look_at) VALUES (old.tenant_id, old.receiver, now())
    ON CONFLICT (tenant_id, receiver) DO UPDATE SET look_at = excluded.look_at WHERE r.look_at > excluded.look_at;
    RETURN NULL;
END
$$;
CREATE TRIGGER delivery_moved AFTER UPDATE ON deliveries FOR EACH ROW
    WHEN ((old.state, old.due_at, old.parked_at) IS DISTINCT FROM (new.state, new.due_at, new.parked_at)
        AND new.state <> 'sending' AND (old.finished_at IS NULL OR new.finished_at IS NULL))
    EXECUTE FUNCTION look_at_receiver();
CREATE TRIGGER delivery_removed AFTER DELETE ON deliveries FOR EACH ROW
    WHEN (old.finished_at IS NULL) EXECUTE FUNCTION look_at_receiver();

-- --- claiming ---------------------------------------------------------------------------------------------------------

-- Receivers with one of these new rows, or due to be looked at; locked. Of each tenant no more than it can get slots. One
-- whose row somebody is writing is left for the next claim: nobody waits for anybody here.
CREATE FUNCTION lock_receivers(p_new uuid[], p_slots integer, p_busy jsonb) RETURNS SETOF receivers
LANGUAGE sql SET search_path = public, pg_temp AS $$
    WITH RECURSIVE tenants AS (
        (SELECT tenant_id FROM receivers WHERE ready_at < 'infinity' ORDER BY tenant_id LIMIT 1)
        UNION ALL
        SELECT following.tenant_id FROM tenants AS t CROSS JOIN LATERAL (
            SELECT r.tenant_id FROM receivers AS r WHERE r.ready_at < 'infinity' AND r.tenant_id > t.tenant_id
            ORDER BY r.tenant_id LIMIT 1) AS following
    ), wanted AS (
        SELECT ready.tenant_id, ready.receiver FROM tenants AS t CROSS JOIN LATERAL (
            SELECT r.tenant_id, r.receiver FROM receivers AS r
            WHERE r.tenant_id = t.tenant_id AND r.ready_at < 'infinity' AND r.ready_at <= now()
            ORDER BY r.ready_at
            LIMIT greatest(0, p_slots - coalesce((p_busy->>t.tenant_id)::integer, 0))) AS ready
        UNION SELECT d.tenant_id, d.receiver FROM deliveries AS d WHERE d.delivery_id = ANY (p_new))
    SELECT r.* FROM receivers AS r JOIN wanted USING (tenant_id, receiver) FOR UPDATE OF r SKIP LOCKED
$$;

-- What may be sent now to receivers that are locked, and whether it is: a tenant may have as many rows under way in a
-- process as the process has slots left (p_slots before anything is taken, p_busy: {tenant: under way}). Alone it gets
-- half of them; n tenants that want more than they get have 1 / (n + 1) each, and as much is free for the next one.
-- Tenants take turns, so do a tenant's receivers; then the most overdue is first.
CREATE FUNCTION sendable(
    p_looked receivers[], p_slots integer, p_each integer, p_trips integer, p_each_channel integer, p_busy jsonb)
RETURNS TABLE (tenant_id text, receiver text, delivery_id uuid, chosen boolean)
LANGUAGE sql SET search_path = public, pg_temp AS $$
    WITH bounds AS (
        SELECT r.tenant_id, r.receiver, r.failures >= p_trips OR r.paused_why IS NOT NULL AS tries, under_way.many, (
            SELECT CASE WHEN channel_of(d.url) IS NULL THEN p_each ELSE p_each_channel END FROM deliveries AS d
            WHERE d.tenant_id = r.tenant_id AND d.receiver = r.receiver
                AND d.state IN ('pending', 'retrying', 'unknown', 'parked') LIMIT 1) AS most
        FROM unnest(p_looked) AS r CROSS JOIN LATERAL (
            SELECT count(*) AS many FROM deliveries AS d
            WHERE d.tenant_id = r.tenant_id AND d.receiver = r.receiver AND d.state = 'sending') AS under_way
        WHERE r.open_until IS NULL OR r.open_until <= now()
    ), due AS (
        SELECT b.tenant_id, b.receiver, d.delivery_id, d.due_at,
            b.many + row_number() OVER (PARTITION BY b.tenant_id, b.receiver ORDER BY d.due_at, d.delivery_id) AS place
        FROM bounds AS b CROSS JOIN LATERAL (
            SELECT d.delivery_id, d.due_at FROM deliveries AS d
            WHERE d.tenant_id = b.tenant_id AND d.receiver = b.receiver
                AND d.state IN ('pending', 'retrying', 'unknown', 'parked') AND d.due_at <= now()
                AND (d.parked_at IS NOT NULL OR NOT EXISTS (
                    SELECT FROM deliveries AS older
                    WHERE older.tenant_id = d.tenant_id AND older.lane = d.lane AND older.parked_at IS NULL
                        AND older.state IN ('pending', 'retrying', 'unknown', 'sending')
                        AND (older.sequence, older.delivery_id) < (d.sequence, d.delivery_id)))
            ORDER BY d.due_at LIMIT greatest(0, CASE WHEN b.tries THEN least(b.most, 1) ELSE b.most END - b.many)
            FOR UPDATE SKIP LOCKED) AS d
    ), placed AS (
        SELECT due.*, coalesce((p_busy->>due.tenant_id)::integer, 0)
            + row_number() OVER (PARTITION BY due.tenant_id ORDER BY due.place, due.due_at, due.delivery_id) AS nth
        FROM due
    ), ranked AS (
        SELECT placed.*, row_number() OVER (ORDER BY nth, due_at, delivery_id) AS taken FROM placed)
    SELECT tenant_id, receiver, delivery_id, nth <= p_slots - taken + 1 FROM ranked
$$;

-- As before (0021), looking only where there may be something (`lock_receivers`), fair between tenants (`sendable`).
-- Row by row through indexes, whatever the planner believes of the tables: statistics of a queue are those of another hour.
CREATE FUNCTION claim_deliveries(
    p_slots integer, p_each integer, p_lease_s integer, p_trips integer, p_each_channel integer, p_busy jsonb)
RETURNS SETOF jsonb LANGUAGE plpgsql SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_new uuid[];
    v_looked receivers[];
    v_chosen uuid[];
    v_left jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('switchboard.claim_deliveries', 0));
    v_new := ARRAY(
        SELECT d.delivery_id FROM deliveries AS d
        WHERE NOT d.seen AND d.state IN ('pending', 'retrying', 'unknown', 'parked')
        ORDER BY d.delivery_id LIMIT 500);  -- the rest is for the claims that follow
    INSERT INTO receivers (tenant_id, receiver)
    SELECT DISTINCT d.tenant_id, d.receiver FROM deliveries AS d WHERE d.delivery_id = ANY (v_new)
    ON CONFLICT DO NOTHING;
    v_looked := ARRAY(SELECT r FROM lock_receivers(v_new, p_slots, p_busy) AS r);
    SELECT array_agg(s.delivery_id) FILTER (WHERE s.chosen),
        jsonb_object_agg(s.tenant_id || ' ' || s.receiver, true) FILTER (WHERE NOT s.chosen)
    INTO v_chosen, v_left FROM sendable(v_looked, p_slots, p_each, p_trips, p_each_channel, p_busy) AS s;
    PERFORM note_looks(v_looked, coalesce(v_left, '{}'), v_new);
    RETURN QUERY
    WITH claimed AS (
        UPDATE deliveries AS d SET
            state = 'sending', attempts = d.attempts + 1, seen = true,
            -- SMTP is a conversation of many steps, each with its own time
            lease_until = now() + p_lease_s * CASE d.kind WHEN 'email' THEN 4 ELSE 1 END * interval '1 second'
        WHERE d.delivery_id = ANY (v_chosen)
        RETURNING d.*
    )
    SELECT jsonb_build_object(
        'id', c.delivery_id, 'tenant', c.tenant_id, 'kind', kind_of_delivery(c), 'url', coalesce(e.url, c.url),
        'endpoint', c.endpoint_id, 'closed', e.disabled_at IS NOT NULL OR e.removed_at IS NOT NULL,
        'event_type', c.event_type, 'sequence', c.sequence, 'body', c.body, 'attempt', c.attempts,
        'failures', c.failures, 'created_us', to_unix_us(c.created_at),
        'secrets', signing_serials(c.tenant_id, coalesce(c.endpoint_id::text, 'default')))
        || CASE WHEN channel_of(c.url) IS NULL THEN '{}' ELSE jsonb_build_object('reply', reply_state(c)) END
    FROM claimed AS c LEFT JOIN endpoints AS e USING (tenant_id, endpoint_id);
END
$$;

-- When receivers that were looked at are looked at again: as soon as may be where something is left (p_left: {"tenant
-- receiver": …}) or the breaker is open (`ready_at`), else when a row of theirs is due. Their new rows are new no more.
CREATE FUNCTION note_looks(p_looked receivers[], p_left jsonb, p_new uuid[]) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE receivers AS r SET look_at = CASE
        WHEN r.open_until > now() OR p_left ? (r.tenant_id || ' ' || r.receiver) THEN least(r.look_at, now())
        ELSE coalesce((
            SELECT min(d.due_at) FROM deliveries AS d
            WHERE d.tenant_id = r.tenant_id AND d.receiver = r.receiver AND d.due_at > now()
                AND d.state IN ('pending', 'retrying', 'unknown', 'parked')), 'infinity') END
    FROM unnest(p_looked) AS looked
    WHERE r.tenant_id = looked.tenant_id AND r.receiver = looked.receiver;
    UPDATE deliveries SET seen = true WHERE delivery_id IN (
        SELECT d.delivery_id FROM deliveries AS d JOIN unnest(p_looked) AS looked USING (tenant_id, receiver)
        WHERE d.delivery_id = ANY (p_new) AND NOT d.seen FOR UPDATE OF d SKIP LOCKED)
$$;

-- A net below the marks: receivers with a row that is due are looked at, whatever their mark says. How many had none.
-- Reads all receivers, beside the claims.
CREATE FUNCTION look_everywhere() RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_found integer;
BEGIN
    UPDATE receivers AS r SET look_at = now()
    FROM (
        SELECT tenant_id, receiver FROM receivers AS m
        WHERE m.look_at > now() + interval '1 second' AND EXISTS (
            SELECT FROM deliveries AS d
            WHERE d.tenant_id = m.tenant_id AND d.receiver = m.receiver AND d.due_at < now() - interval '1 minute'
                AND d.state IN ('pending', 'retrying', 'unknown', 'parked'))
        FOR UPDATE SKIP LOCKED) AS missed
    WHERE r.tenant_id = missed.tenant_id AND r.receiver = missed.receiver;
    GET DIAGNOSTICS v_found = ROW_COUNT;
    RETURN v_found;
END
$$;

-- As before (0025); receivers that are owed nothing and have failed nobody go, too.
CREATE OR REPLACE FUNCTION forget_deliveries(p_days integer, p_most integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_before constant timestamptz := now() - p_days * interval '1 day';
    v_gone integer;
BEGIN
    DELETE FROM deliveries WHERE delivery_id IN (
        SELECT delivery_id FROM deliveries
        WHERE delivery_id < uuid7_floor(v_before) AND finished_at < v_before
        ORDER BY delivery_id LIMIT p_most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    DELETE FROM receivers WHERE (tenant_id, receiver) IN (
        SELECT r.tenant_id, r.receiver FROM receivers AS r
        WHERE r.look_at = 'infinity' AND r.failures = 0 AND r.pauses = 0 AND r.paused_why IS NULL
            AND (r.open_until IS NULL OR r.open_until < now())
            AND NOT EXISTS (
                SELECT FROM deliveries AS d
                WHERE d.tenant_id = r.tenant_id AND d.receiver = r.receiver AND d.finished_at IS NULL
                    AND d.state IN ('pending', 'retrying', 'unknown', 'parked'))
            AND NOT EXISTS (
                SELECT FROM deliveries AS d
                WHERE d.tenant_id = r.tenant_id AND d.receiver = r.receiver AND d.state = 'sending')
        LIMIT p_most FOR UPDATE SKIP LOCKED);
    RETURN v_gone;
END
$$;
