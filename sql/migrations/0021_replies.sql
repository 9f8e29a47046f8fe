-- Replies through channels (messengers): a delivery whose URL is channel://<id> is sent by that channel's provider.
--
-- A reply may take several messages: its parts, each with what is known of it. A part turns `sending` before its request
-- and `sent` with the provider's id after it; a delivery that is taken up again goes on at the first part that is not
-- sent. What was `sending` when its process vanished is `unknown`: a status that echoes our reference settles it, else it
-- is sent again, or held, as the channel says.

CREATE TABLE delivery_parts (
    tenant_id text NOT NULL,
    delivery_id uuid NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    part integer NOT NULL CHECK (part > 0),
    form text NOT NULL CHECK (form IN ('text', 'template')),
    text text NOT NULL,  -- cut once: another version of the code must not cut what is left in other places
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'unknown', 'sent')),
    tried integer NOT NULL DEFAULT 0,  -- the attempt that began it last
    resent integer NOT NULL DEFAULT 0,  -- how often it was sent again though it may have arrived
    message_id text,  -- the provider's
    began_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, delivery_id, part)
);
CREATE INDEX delivery_parts_message ON delivery_parts (tenant_id, message_id) WHERE message_id IS NOT NULL;
SELECT protect_table('delivery_parts');
REVOKE UPDATE, DELETE ON delivery_parts FROM switchboard_app;

-- How fast a channel may send: as a whole (peer '') and to each peer. `next_at` is when the next message would be due if
-- they were evenly spaced (GCRA's theoretical arrival time).
CREATE TABLE channel_paces (
    tenant_id text NOT NULL,
    channel_id text NOT NULL,
    peer text NOT NULL,
    next_at timestamptz NOT NULL,
    blocked_until timestamptz,  -- the provider asked for it
    PRIMARY KEY (tenant_id, channel_id, peer)
);
CREATE INDEX channel_paces_old ON channel_paces (next_at);
SELECT protect_table('channel_paces');

ALTER TABLE deliveries
    ADD COLUMN put_off integer NOT NULL DEFAULT 0,  -- how often in a row it had to wait for a limit or a paused channel
    ADD COLUMN put_off_since timestamptz;

-- A paused channel: nothing goes out until open_until; then one message tries.
ALTER TABLE receivers
    ADD COLUMN paused_why jsonb CHECK (paused_why ? 'code' AND paused_why ? 'message'),
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN pauses integer NOT NULL DEFAULT 0;

ALTER TABLE channel_statuses ADD COLUMN reference text;  -- ours, where the provider echoes it
CREATE INDEX channel_statuses_reference ON channel_statuses (tenant_id, channel_id, reference)
    WHERE reference IS NOT NULL;

ALTER TABLE delivery_attempts
    DROP CONSTRAINT delivery_attempts_outcome_check,
    ADD CONSTRAINT delivery_attempts_outcome CHECK (outcome IN ('delivered', 'failed', 'unknown', 'put_off'));

-- The channel that a delivery goes through; NULL for any other.
CREATE FUNCTION channel_of(p_url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_url LIKE 'channel://%' THEN substring(p_url FROM 11) END
$$;

-- As `deliveries.receiver` has it.
CREATE FUNCTION receiver_of_channel(p_channel text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 'host:' || md5('channel://' || p_channel)
$$;

-- What is told to the provider with a part, unique for every time it is sent.
CREATE FUNCTION part_reference(p_delivery uuid, p_part integer, p_tried integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_delivery || ':' || p_part || ':' || p_tried
$$;

-- --- claiming ---------------------------------------------------------------------------------------------------------

-- As before (0016), with replies: at most p_each_channel of them under way in one channel. What is under way holds a
-- lease for one request and 30 s; each part renews it.
CREATE FUNCTION claim_deliveries(
    p_slots integer, p_each integer, p_lease_s integer, p_trips integer, p_each_channel integer)
RETURNS SETOF jsonb LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('switchboard.claim_deliveries', 0));
    RETURN QUERY
    WITH RECURSIVE waiting AS (
        (SELECT d.tenant_id, d.receiver, channel_of(d.url) IS NOT NULL AS is_channel FROM deliveries AS d
         WHERE d.state IN ('pending', 'retrying', 'unknown', 'parked') ORDER BY d.tenant_id, d.receiver LIMIT 1)
        UNION ALL
        SELECT following.* FROM waiting AS w CROSS JOIN LATERAL (
            SELECT d.tenant_id, d.receiver, channel_of(d.url) IS NOT NULL FROM deliveries AS d
            WHERE d.state IN ('pending', 'retrying', 'unknown', 'parked')
                AND (d.tenant_id, d.receiver) > (w.tenant_id, w.receiver)
            ORDER BY d.tenant_id, d.receiver LIMIT 1) AS following
    ), bounds AS (
        SELECT w.tenant_id, w.receiver, CASE WHEN w.is_channel THEN p_each_channel ELSE p_each END AS most
        FROM waiting AS w
    ), room AS (
        SELECT w.tenant_id, w.receiver,
            CASE WHEN coalesce(r.failures, 0) >= p_trips OR r.paused_why IS NOT NULL THEN least(w.most, 1)
                ELSE w.most END - (
                SELECT count(*) FROM deliveries AS d
                WHERE d.tenant_id = w.tenant_id AND d.receiver = w.receiver AND d.state = 'sending') AS free
        FROM bounds AS w LEFT JOIN receivers AS r USING (tenant_id, receiver)
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
        'id', c.delivery_id, 'tenant', c.tenant_id, 'kind', kind_of_delivery(c), 'url', coalesce(e.url, c.url),
        'endpoint', c.endpoint_id, 'closed', e.disabled_at IS NOT NULL OR e.removed_at IS NOT NULL,
        'event_type', c.event_type, 'sequence', c.sequence, 'body', c.body, 'attempt', c.attempts,
        'failures', c.failures, 'created_us', to_unix_us(c.created_at),
        'secrets', signing_serials(c.tenant_id, coalesce(c.endpoint_id::text, 'default')))
        || CASE WHEN channel_of(c.url) IS NULL THEN '{}' ELSE jsonb_build_object('reply', reply_state(c)) END
    FROM claimed AS c LEFT JOIN endpoints AS e USING (tenant_id, endpoint_id);
END
$$;

-- For processes of the version before: they do not know how to send a reply.
CREATE OR REPLACE FUNCTION claim_deliveries(p_slots integer, p_each integer, p_lease_s integer, p_trips integer)
RETURNS SETOF jsonb LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT * FROM claim_deliveries(p_slots, p_each, p_lease_s, p_trips, 0)
$$;

CREATE FUNCTION kind_of_delivery(d deliveries) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN channel_of(d.url) IS NULL THEN d.kind ELSE 'channel' END
$$;

-- What whoever sends a reply needs beside it: the channel with its sealed credentials (NULL: it was removed), how far an
-- earlier attempt came, and when its user was last heard of.
CREATE FUNCTION reply_state(d deliveries) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'channel', (
            SELECT jsonb_build_object('id', c.channel_id, 'kind', c.kind, 'settings', c.settings, 'sealed', c.sealed)
            FROM channels AS c WHERE c.channel_id = channel_of(d.url) AND c.tenant_id = d.tenant_id),
        'parts', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'part', p.part, 'form', p.form, 'text', p.text, 'state', p.state, 'resent', p.resent) ORDER BY p.part)
            FROM delivery_parts AS p WHERE p.tenant_id = d.tenant_id AND p.delivery_id = d.delivery_id), '[]'),
        'put_off', d.put_off, 'put_off_since_us', to_unix_us(d.put_off_since),
        'heard_us', (
            SELECT to_unix_us(m.created_at) FROM messages AS m
            WHERE m.tenant_id = d.tenant_id AND m.conversation_id = d.conversation_id AND m.role = 'user'
            ORDER BY m.seq DESC LIMIT 1))
$$;

-- As before (0016), with replies. Where no request was under way nothing is in doubt: the reply simply goes on. A lease
-- is renewed before each request and outlasts it by 30 s: a status that echoes our reference has come by now.
CREATE OR REPLACE FUNCTION recover_deliveries(p_most integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_found integer;
BEGIN
    WITH doubtful AS (
        UPDATE delivery_parts AS p SET state = 'unknown' FROM deliveries AS d
        WHERE d.state = 'sending' AND d.lease_until < now() AND channel_of(d.url) IS NOT NULL
            AND p.tenant_id = d.tenant_id AND p.delivery_id = d.delivery_id AND p.state = 'sending'
        RETURNING d.tenant_id, d.delivery_id
    ), gone AS (
        SELECT d.tenant_id, d.delivery_id,
            channel_of(d.url) IS NULL
                OR EXISTS (SELECT FROM doubtful AS o WHERE (o.tenant_id, o.delivery_id) = (d.tenant_id, d.delivery_id))
                AS in_doubt
        FROM deliveries AS d WHERE d.state = 'sending' AND d.lease_until < now()
    ), lapsed AS (
        UPDATE deliveries AS d SET
            lease_until = NULL, failures = d.failures + 1, first_failed_at = coalesce(d.first_failed_at, now()),
            due_at = now(), last_error = jsonb_build_object(
                'code', 'vanished', 'message', 'the process that was sending it ended; it may have arrived'),
            state = CASE WHEN d.failures + 1 >= p_most THEN 'failed'
                WHEN gone.in_doubt THEN 'unknown' WHEN d.parked_at IS NULL THEN 'retrying' ELSE 'parked' END,
            finished_at = CASE WHEN d.failures + 1 >= p_most THEN now() END
        FROM gone
        WHERE d.tenant_id = gone.tenant_id AND d.delivery_id = gone.delivery_id
            AND d.state = 'sending' AND d.lease_until < now()
        RETURNING d.tenant_id, d.delivery_id, d.attempts, gone.in_doubt)
    INSERT INTO delivery_attempts (tenant_id, delivery_id, attempt, outcome, code)
    SELECT tenant_id, delivery_id, attempts, CASE WHEN in_doubt THEN 'unknown' ELSE 'failed' END, 'vanished'
    FROM lapsed;
    GET DIAGNOSTICS v_found = ROW_COUNT;
    DELETE FROM channel_paces WHERE next_at < now() - interval '1 hour'
        AND coalesce(blocked_until < now(), true);
    RETURN v_found;
END
$$;

-- --- sending ------------------------------------------------------------------------------------------------------------

-- Cuts a reply, or what is left of it, into p_texts from part p_from on. Parts before it stay as they are. False when the
-- delivery is not that attempt's any more.
CREATE FUNCTION plan_parts(
    p_tenant text, p_delivery uuid, p_attempt integer, p_from integer, p_form text, p_texts text[]) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM FROM deliveries WHERE tenant_id = p_tenant AND delivery_id = p_delivery AND attempts = p_attempt
        AND state = 'sending' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM delivery_parts
    WHERE tenant_id = p_tenant AND delivery_id = p_delivery AND part >= p_from AND state <> 'sent';
    INSERT INTO delivery_parts (tenant_id, delivery_id, part, form, text)
    SELECT p_tenant, p_delivery, p_from + place::integer - 1, p_form, t
    FROM unnest(p_texts) WITH ORDINALITY AS given(t, place);
    RETURN true;
END
$$;

-- Asks to send a part now. {outcome}: `go` (after wait_us, with a reference; it is `sending` from here on), `sent` (an
-- echo says so, or we do), `wait` (for wait_us, more than p_patience_us: nothing was changed), `held` (it may have arrived
-- and p_hold), `lost` (the delivery is not this attempt's). p_paces: [{peer, interval_us, burst}].
CREATE FUNCTION begin_part(
    p_tenant text, p_delivery uuid, p_attempt integer, p_part integer, p_channel text, p_hold boolean,
    p_paces jsonb, p_patience_us bigint, p_lease_s integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_part delivery_parts;
    v_doubt boolean;
    v_echo text;
    v_wait_us bigint;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    PERFORM FROM deliveries WHERE tenant_id = p_tenant AND delivery_id = p_delivery AND attempts = p_attempt
        AND state = 'sending' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN '{"outcome": "lost"}';
    END IF;
    SELECT * INTO STRICT v_part FROM delivery_parts
    WHERE tenant_id = p_tenant AND delivery_id = p_delivery AND part = p_part FOR UPDATE;
    v_doubt := v_part.state IN ('sending', 'unknown');
    IF v_doubt THEN
        SELECT s.message_id INTO v_echo FROM channel_statuses AS s
        WHERE s.tenant_id = p_tenant AND s.channel_id = p_channel
            AND s.reference = part_reference(p_delivery, p_part, v_part.tried) LIMIT 1;
        IF FOUND THEN
            UPDATE delivery_parts SET state = 'sent', message_id = v_echo, ended_at = now()
            WHERE tenant_id = p_tenant AND delivery_id = p_delivery AND part = p_part;
            RETURN '{"outcome": "sent"}';
        ELSIF p_hold THEN
            RETURN '{"outcome": "held"}';
        END IF;
    ELSIF v_part.state = 'sent' THEN
        RETURN '{"outcome": "sent"}';
    END IF;
    v_wait_us := take_pace(p_tenant, p_channel, p_paces, p_patience_us);
    IF v_wait_us > p_patience_us THEN
        RETURN jsonb_build_object('outcome', 'wait', 'wait_us', v_wait_us);
    END IF;
    UPDATE delivery_parts SET
        state = 'sending', tried = p_attempt, resent = resent + v_doubt::integer, began_at = now(), ended_at = NULL
    WHERE tenant_id = p_tenant AND delivery_id = p_delivery AND part = p_part;
    UPDATE deliveries SET lease_until = now() + p_lease_s * interval '1 second'
    WHERE tenant_id = p_tenant AND delivery_id = p_delivery;
    RETURN jsonb_build_object(
        'outcome', 'go', 'wait_us', v_wait_us, 'reference', part_reference(p_delivery, p_part, p_attempt));
END
$$;

-- Takes a place in every pace of p_paces, or in none when one of them makes it wait for more than p_patience_us. For how
-- many µs to wait. The tenant must be set.
CREATE FUNCTION take_pace(p_tenant text, p_channel text, p_paces jsonb, p_patience_us bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_now timestamptz;
    v_wait_us bigint;
BEGIN
    INSERT INTO channel_paces (tenant_id, channel_id, peer, next_at)
    SELECT p_tenant, p_channel, peer, 'epoch' FROM jsonb_to_recordset(p_paces) AS g(peer text) ORDER BY peer
    ON CONFLICT DO NOTHING;
    PERFORM FROM channel_paces AS c JOIN jsonb_to_recordset(p_paces) AS g(peer text) USING (peer)
    WHERE c.tenant_id = p_tenant AND c.channel_id = p_channel ORDER BY peer FOR UPDATE OF c;
    v_now := clock_timestamp();
    SELECT greatest(0, max(to_unix_us(greatest(
        c.next_at - (g.burst - 1) * g.interval_us * interval '1 microsecond', c.blocked_until)) - to_unix_us(v_now)))
    INTO v_wait_us
    FROM channel_paces AS c JOIN jsonb_to_recordset(p_paces) AS g(peer text, interval_us bigint, burst integer)
        USING (peer)
    WHERE c.tenant_id = p_tenant AND c.channel_id = p_channel;
    IF v_wait_us <= p_patience_us THEN
        UPDATE channel_paces AS c SET
            next_at = greatest(c.next_at, v_now) + g.interval_us * interval '1 microsecond'
        FROM jsonb_to_recordset(p_paces) AS g(peer text, interval_us bigint)
        WHERE c.tenant_id = p_tenant AND c.channel_id = p_channel AND c.peer = g.peer;
    END IF;
    RETURN v_wait_us;
END
$$;

-- What became of a part's request: `sent`, `waiting` (it was refused), or `unknown`. False when a later attempt has begun
-- it anew meanwhile.
CREATE FUNCTION end_part(
    p_tenant text, p_delivery uuid, p_attempt integer, p_part integer, p_state text, p_message_id text)
RETURNS boolean LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    UPDATE delivery_parts SET state = p_state, message_id = coalesce(p_message_id, message_id), ended_at = now()
    WHERE tenant_id = p_tenant AND delivery_id = p_delivery AND part = p_part AND tried = p_attempt;
    RETURN FOUND;
END
$$;

-- What became of an attempt at a reply: {state, due_us, counted (a failure), put_off, code, message, status, latency_ms,
-- logged (the outcome in the log, or NULL), blame, pause (the channel, until a person or time mends it), slow_us (nothing
-- through the channel for so long), peer and peer_us (nothing to that peer)}. False when the row is not that attempt's.
CREATE FUNCTION end_reply_attempt(
    p_tenant text, p_delivery uuid, p_attempt integer, p_outcome jsonb, p_trips integer, p_pause_s integer)
RETURNS boolean LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    o record;
    v_row deliveries;
    v_refused jsonb;
    v_error jsonb;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO o FROM jsonb_to_record(p_outcome) AS given(
        state text, due_us bigint, counted boolean, put_off boolean, code text, message text, status integer,
        latency_ms double precision, logged text, blame boolean, pause boolean, slow_us bigint, peer text,
        peer_us bigint);
    PERFORM FROM deliveries WHERE tenant_id = p_tenant AND delivery_id = p_delivery FOR UPDATE;
    IF o.state = 'delivered' THEN  -- the provider may have taken it back already
        SELECT failed_by_provider(p_tenant, p_delivery) INTO v_refused;
    END IF;
    v_error := coalesce(v_refused, CASE WHEN o.state <> 'delivered' THEN
        jsonb_strip_nulls(jsonb_build_object('code', o.code, 'message', o.message, 'status', o.status)) END);
    UPDATE deliveries AS d SET
        state = CASE WHEN v_refused IS NOT NULL THEN 'failed'
            WHEN d.parked_at IS NOT NULL AND o.state IN ('pending', 'retrying', 'unknown') THEN 'parked'
            ELSE o.state END,
        parked_at = CASE WHEN o.state = 'parked' THEN coalesce(d.parked_at, now()) ELSE d.parked_at END,
        finished_at = CASE WHEN o.state IN ('delivered', 'failed') THEN now() END,
        due_at = coalesce(from_unix_us(o.due_us), d.due_at),
        failures = d.failures + o.counted::integer,
        first_failed_at = CASE WHEN o.counted THEN coalesce(d.first_failed_at, now()) ELSE d.first_failed_at END,
        put_off = CASE WHEN o.put_off THEN d.put_off + 1 ELSE 0 END,
        put_off_since = CASE WHEN o.put_off THEN coalesce(d.put_off_since, now()) END,
        lease_until = NULL, last_error = v_error
    WHERE d.tenant_id = p_tenant AND d.delivery_id = p_delivery AND d.attempts = p_attempt
        AND d.state IN ('sending', 'unknown')
    RETURNING * INTO v_row;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF o.logged IS NOT NULL THEN
        INSERT INTO delivery_attempts (tenant_id, delivery_id, attempt, outcome, status, code, message, latency_ms)
        VALUES (p_tenant, p_delivery, p_attempt, o.logged, o.status, o.code, o.message, o.latency_ms)
        ON CONFLICT (tenant_id, delivery_id, attempt) DO NOTHING;  -- its lease had lapsed: the log says unknown
    END IF;
    PERFORM note_receiver(p_tenant, v_row.receiver, o.state = 'delivered', o.blame, p_trips, p_pause_s);
    PERFORM note_pause(p_tenant, v_row, o.pause, o.slow_us, v_error, o.state = 'delivered');
    IF o.peer IS NOT NULL THEN
        UPDATE channel_paces SET blocked_until = greatest(blocked_until, now() + o.peer_us * interval '1 microsecond')
        WHERE tenant_id = p_tenant AND channel_id = channel_of(v_row.url) AND peer = o.peer;
    END IF;
    RETURN true;
END
$$;

-- Pauses a channel for a minute, doubling up to an hour while one message after another finds it so; one that gets through
-- ends it. The tenant must be set.
CREATE FUNCTION note_pause(
    p_tenant text, p_row deliveries, p_pause boolean, p_slow_us bigint, p_why jsonb, p_through boolean) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF p_through THEN
        UPDATE receivers SET paused_why = NULL, paused_at = NULL, pauses = 0, open_until = NULL
        WHERE tenant_id = p_tenant AND receiver = p_row.receiver AND paused_why IS NOT NULL;
    ELSIF p_pause THEN
        INSERT INTO receivers AS r (tenant_id, receiver, paused_why, paused_at, pauses, open_until)
        VALUES (p_tenant, p_row.receiver, p_why, now(), 1, now() + interval '1 minute')
        ON CONFLICT (tenant_id, receiver) DO UPDATE SET
            paused_why = p_why, paused_at = coalesce(r.paused_at, now()), pauses = r.pauses + 1,
            open_until = now() + least(60 * 2 ^ least(r.pauses, 10), 3600) * interval '1 second'
        WHERE r.paused_why IS NULL OR r.open_until <= now();  -- others were under way when it was found
    ELSIF p_slow_us > 0 THEN
        INSERT INTO receivers AS r (tenant_id, receiver, open_until)
        VALUES (p_tenant, p_row.receiver, now() + p_slow_us * interval '1 microsecond')
        ON CONFLICT (tenant_id, receiver) DO UPDATE SET
            open_until = greatest(r.open_until, now() + p_slow_us * interval '1 microsecond');
    END IF;
END
$$;

-- The first part that its provider took and then could not deliver, as an error; NULL: none. The tenant must be set.
CREATE FUNCTION failed_by_provider(p_tenant text, p_delivery uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'code', coalesce(s.error->>'code', 'undelivered'),
        'message', coalesce(s.error->>'title', s.error->>'message', 'the provider could not deliver it'))
    FROM deliveries AS d JOIN delivery_parts AS p USING (tenant_id, delivery_id)
        JOIN channel_statuses AS s ON s.tenant_id = p.tenant_id AND s.channel_id = channel_of(d.url)
            AND s.message_id = p.message_id AND s.state = 'failed'
    WHERE d.tenant_id = p_tenant AND d.delivery_id = p_delivery AND p.state = 'sent'
        AND NOT EXISTS (
            SELECT FROM channel_statuses AS arrived
            WHERE arrived.tenant_id = s.tenant_id AND arrived.channel_id = s.channel_id
                AND arrived.message_id = s.message_id AND arrived.state IN ('delivered', 'read', 'played'))
    ORDER BY p.part LIMIT 1
$$;

-- --- what providers tell afterwards ---------------------------------------------------------------------------------------

-- As before (0019), with references, and what statuses mean for replies: one that may have arrived has, and one that was
-- delivered to the provider was not delivered by it.
CREATE OR REPLACE FUNCTION note_inbound(p_tenant text, p_rows jsonb) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_channel text;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    INSERT INTO channel_statuses (
        tenant_id, channel_id, message_id, state, at, recipient, error, details, reference, received_at)
    SELECT p_tenant, g.channel, g.message_id, g.state, from_unix_us(g.at_us), g.recipient, g.error,
        coalesce(g.details, '{}'), g.reference, from_unix_us(g.received_us)
    FROM jsonb_to_recordset(p_rows) AS g(
        channel text, message_id text, state text, at_us bigint, recipient text, error jsonb, details jsonb,
        reference text, received_us bigint)
    WHERE g.message_id IS NOT NULL
    ON CONFLICT DO NOTHING;
    PERFORM note_statuses(p_tenant, p_rows);
    INSERT INTO inbound_kept AS k (tenant_id, channel_id, digest, reason, payload, times, received_at)
    SELECT p_tenant, g.channel, g.digest, min(g.reason), (array_agg(g.payload))[1], count(*),
        from_unix_us(max(g.received_us))
    FROM jsonb_to_recordset(p_rows) AS g(
        channel text, digest text, reason text, payload jsonb, received_us bigint)
    WHERE g.digest IS NOT NULL GROUP BY g.channel, g.digest
    ON CONFLICT (tenant_id, channel_id, digest) DO UPDATE SET
        times = k.times + excluded.times, received_at = greatest(k.received_at, excluded.received_at);
    DELETE FROM channel_statuses WHERE tenant_id = p_tenant AND received_at < now() - interval '90 days';
    FOR v_channel IN
        SELECT DISTINCT g.channel FROM jsonb_to_recordset(p_rows) AS g(channel text, digest text)
        WHERE g.digest IS NOT NULL
    LOOP
        DELETE FROM inbound_kept WHERE tenant_id = p_tenant AND channel_id = v_channel AND received_at < greatest(
            now() - interval '30 days',
            (SELECT received_at FROM inbound_kept WHERE tenant_id = p_tenant AND channel_id = v_channel
             ORDER BY received_at DESC OFFSET 10000 LIMIT 1));
    END LOOP;
    RETURN jsonb_array_length(p_rows);
END
$$;

-- The role of chat workers writes what their users' providers tell; of a part it may settle no more than this.
GRANT UPDATE (state, message_id, ended_at) ON delivery_parts TO switchboard_app;

CREATE FUNCTION note_statuses(p_tenant text, p_rows jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    -- Held ones: the status came too late for whoever waited for it.
    WITH echoed AS (
        SELECT g.channel, g.message_id, g.reference,
            CASE WHEN g.reference ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9]{1,6}:[0-9]{1,9}$'
                THEN split_part(g.reference, ':', 1)::uuid END AS delivery_id
        FROM jsonb_to_recordset(p_rows) AS g(channel text, message_id text, reference text)
        WHERE g.reference IS NOT NULL
    ), settled AS (
        UPDATE delivery_parts AS p SET state = 'sent', message_id = e.message_id, ended_at = now()
        FROM echoed AS e JOIN deliveries AS d
            ON d.tenant_id = p_tenant AND d.delivery_id = e.delivery_id AND channel_of(d.url) = e.channel
        WHERE p.tenant_id = p_tenant AND p.delivery_id = e.delivery_id AND p.state = 'unknown'
            AND part_reference(p.delivery_id, p.part, p.tried) = e.reference AND d.state = 'failed'
        RETURNING p.delivery_id, p.part)
    UPDATE deliveries AS d SET state = 'delivered', last_error = NULL FROM settled
    WHERE d.tenant_id = p_tenant AND d.delivery_id = settled.delivery_id AND d.state = 'failed'
        AND NOT EXISTS (
            SELECT FROM delivery_parts AS p
            WHERE p.tenant_id = p_tenant AND p.delivery_id = d.delivery_id AND p.state <> 'sent'
                AND (p.delivery_id, p.part) NOT IN (SELECT s.delivery_id, s.part FROM settled AS s));
    -- One that is `sending` is waited for: whoever ends it may not have seen this status.
    UPDATE deliveries AS d SET
        state = CASE d.state WHEN 'delivered' THEN 'failed' ELSE d.state END,
        last_error = CASE d.state WHEN 'delivered' THEN failed_by_provider(p_tenant, d.delivery_id)
            ELSE d.last_error END
    FROM jsonb_to_recordset(p_rows) AS g(channel text, message_id text, state text)
        JOIN delivery_parts AS p ON p.tenant_id = p_tenant AND p.message_id = g.message_id AND p.state = 'sent'
    WHERE g.state = 'failed' AND d.tenant_id = p_tenant AND d.delivery_id = p.delivery_id
        AND channel_of(d.url) = g.channel AND d.state IN ('delivered', 'sending')
        AND failed_by_provider(p_tenant, d.delivery_id) IS NOT NULL;
END
$$;

-- --- people's side ----------------------------------------------------------------------------------------------------------

-- Why nothing goes to a receiver, and until when; NULL: it does.
CREATE FUNCTION pause_of(p_tenant text, p_receiver text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT r.paused_why || jsonb_build_object(
        'since_us', to_unix_us(r.paused_at), 'until_us', to_unix_us(r.open_until))
    FROM receivers AS r
    WHERE r.tenant_id = p_tenant AND r.receiver = p_receiver AND r.paused_why IS NOT NULL
$$;

-- As `message_states` (0019), for callers that have set the tenant or see all of them.
CREATE FUNCTION known_of_message(p_tenant text, p_channel text, p_message text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'state', (array_agg(s.state ORDER BY
            array_position(ARRAY['sent', 'failed', 'delivered', 'read', 'played'], s.state) DESC))[1],
        'states', jsonb_agg(jsonb_build_object(
            'state', s.state, 'at_us', to_unix_us(s.at), 'error', s.error) ORDER BY s.at, s.received_at))
    FROM channel_statuses AS s
    WHERE s.tenant_id = p_tenant AND s.channel_id = p_channel AND s.message_id = p_message
    HAVING count(*) > 0
$$;

CREATE OR REPLACE FUNCTION delivery_summary(d deliveries) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', d.delivery_id, 'tenant', d.tenant_id, 'kind', kind_of_delivery(d), 'event_type', d.event_type,
        'url', d.url, 'endpoint_id', d.endpoint_id, 'job_id', d.job_id, 'run', d.run,
        'conversation_id', d.conversation_id, 'sequence', d.sequence, 'state', d.state, 'attempts', d.attempts,
        'due_us', to_unix_us(d.due_at), 'created_us', to_unix_us(d.created_at),
        'finished_us', to_unix_us(d.finished_at), 'error', d.last_error,
        'paused', CASE WHEN channel_of(d.url) IS NOT NULL AND d.finished_at IS NULL
            THEN pause_of(d.tenant_id, d.receiver) END)
$$;

-- As before (0016), with the messages of a reply and what its provider said of each.
CREATE OR REPLACE FUNCTION delivery_detail(p_tenant text, p_delivery uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    RETURN (
        SELECT delivery_summary(d) || jsonb_build_object('body', d.body, 'log', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'attempt', a.attempt, 'ended_us', to_unix_us(a.ended_at), 'outcome', a.outcome, 'status', a.status,
                'code', a.code, 'message', a.message, 'latency_ms', a.latency_ms) ORDER BY a.attempt)
            FROM delivery_attempts AS a WHERE a.tenant_id = d.tenant_id AND a.delivery_id = d.delivery_id), '[]'),
            'parts', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'part', p.part, 'form', p.form, 'state', p.state, 'resent', p.resent, 'message_id', p.message_id,
                'began_us', to_unix_us(p.began_at), 'ended_us', to_unix_us(p.ended_at),
                'status', said->>'state', 'statuses', coalesce(said->'states', '[]')) ORDER BY p.part)
            FROM delivery_parts AS p
                CROSS JOIN LATERAL known_of_message(p.tenant_id, channel_of(d.url), p.message_id) AS said
            WHERE p.tenant_id = d.tenant_id AND p.delivery_id = d.delivery_id), '[]'))
        FROM deliveries AS d
        WHERE d.delivery_id = p_delivery AND (p_tenant IS NULL OR d.tenant_id = p_tenant));
END
$$;

-- As before (0016). Of a reply what was not sent, or not delivered by its provider, is sent: a person has decided about
-- what may have arrived. One that was sent whole is sent again whole.
CREATE OR REPLACE FUNCTION replay_delivery(p_tenant text, p_delivery uuid) RETURNS text
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
    UPDATE delivery_parts AS p SET state = 'waiting', message_id = NULL
    WHERE p.tenant_id = v_row.tenant_id AND p.delivery_id = p_delivery AND (
        v_row.state = 'delivered' OR p.state <> 'sent'
        OR known_of_message(p.tenant_id, channel_of(v_row.url), p.message_id)->>'state' = 'failed');
    UPDATE deliveries SET
        state = CASE WHEN finished_at IS NULL AND parked_at IS NULL THEN state ELSE 'parked' END,
        parked_at = CASE WHEN finished_at IS NULL AND parked_at IS NULL THEN NULL ELSE now() END,
        failures = 0, first_failed_at = NULL, due_at = now(), finished_at = NULL, put_off = 0, put_off_since = NULL
    WHERE delivery_id = p_delivery AND tenant_id = v_row.tenant_id;
    UPDATE receivers SET open_until = NULL WHERE tenant_id = v_row.tenant_id AND receiver = v_row.receiver;
    RETURN 'queued';
END
$$;

-- As before (0019), with why its replies wait.
CREATE OR REPLACE FUNCTION channel_resource(c channels) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', c.channel_id, 'tenant', c.tenant_id, 'kind', c.kind, 'name', c.name, 'agent', c.agent,
        'domain', c.domain, 'feature', c.feature, 'settings', c.settings, 'credentials', c.held, 'version', c.version,
        'created_us', to_unix_us(c.created_at), 'updated_us', to_unix_us(c.updated_at),
        'paused', pause_of(c.tenant_id, receiver_of_channel(c.channel_id)))
$$;

-- Ends a channel's pause: its replies are tried again at once. False: it was not paused. The tenant must be set, or seen.
CREATE FUNCTION end_pause(p_tenant text, p_channel text) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE receivers SET paused_why = NULL, paused_at = NULL, pauses = 0, open_until = NULL, failures = 0,
        failing_since = NULL
    WHERE tenant_id = p_tenant AND receiver = receiver_of_channel(p_channel) AND paused_why IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE deliveries SET due_at = now()
    WHERE tenant_id = p_tenant AND receiver = receiver_of_channel(p_channel) AND put_off > 0
        AND state IN ('pending', 'parked') AND due_at > now();
    RETURN true;
END
$$;

-- Whoever changes a channel has perhaps mended it.
CREATE FUNCTION resume_changed_channel() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM end_pause(new.tenant_id, new.channel_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER channel_changed AFTER UPDATE ON channels
    FOR EACH ROW EXECUTE FUNCTION resume_changed_channel();

-- The channel as it is now, or NULL: no such channel, or not p_tenant's; with NULL any tenant's.
CREATE FUNCTION resume_channel(p_tenant text, p_id text, p_by text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_channel channels;
BEGIN
    PERFORM set_config('switchboard.tenant', p_tenant, true);
    SELECT * INTO v_channel FROM channels WHERE channel_id = p_id AND (p_tenant IS NULL OR tenant_id = p_tenant);
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF end_pause(v_channel.tenant_id, p_id) THEN
        PERFORM note_tenant_change(v_channel.tenant_id, p_by, 'channel_resumed', NULL, channel_resource(v_channel));
    END IF;
    RETURN channel_resource(v_channel);
END
$$;
