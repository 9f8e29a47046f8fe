-- name: delivery_load
-- Open deliveries of all tenants, by kind and state. Of a backlog at most 100,000 are counted: it is asked every few seconds.
SELECT kind, state, count(*) AS deliveries FROM (
    (SELECT kind_of_delivery(d) AS kind, d.state FROM deliveries AS d
    WHERE d.state IN ('pending', 'retrying', 'unknown', 'parked') LIMIT 100000)
    UNION ALL
    SELECT kind_of_delivery(d), d.state FROM deliveries AS d WHERE d.state = 'sending'
) AS open_ones GROUP BY kind, state

-- name: delivery_lag
-- For how many seconds delivery processes have left alone what is due; 0: nothing is. A receiver that is being sent to is
-- not left alone, however much more it is owed.
SELECT greatest(0, coalesce(extract(epoch FROM now() - least(
    (SELECT min(r.ready_at) FROM receivers AS r WHERE r.ready_at < 'infinity' AND NOT EXISTS (
        SELECT FROM deliveries AS d
        WHERE d.tenant_id = r.tenant_id AND d.receiver = r.receiver AND d.state = 'sending' AND d.lease_until > now())),
    (SELECT min(created_at) FROM deliveries
        WHERE NOT seen AND state IN ('pending', 'retrying', 'unknown', 'parked'))
)), 0))::double precision AS lag_s

-- name: closed_ways
-- Channels that are paused, and endpoints that were disabled because nothing got through.
SELECT (SELECT count(*) FROM receivers WHERE paused_why IS NOT NULL) AS channels,
    (SELECT count(*) FROM endpoints WHERE disabled_why IN ('gone', 'failing') AND removed_at IS NULL) AS endpoints

-- name: memory_outbox_load
-- Turns that memory has not taken in: how many (of the oldest 100,000), how many of them could not be, and for how many
-- seconds the oldest waits.
SELECT count(*) AS turns, count(*) FILTER (WHERE attempts > 0) AS failing,
    coalesce(extract(epoch FROM now() - min(created_at)), 0)::double precision AS oldest_s
FROM (SELECT attempts, created_at FROM memory_outbox ORDER BY id LIMIT 100000) AS oldest

-- name: erasure_load
-- Erasures that are not done: how many, and for how many seconds the oldest is wanted.
SELECT count(*) AS erasures, coalesce(extract(epoch FROM now() - min(requested_at)), 0)::double precision AS oldest_s
FROM erasures WHERE state <> 'done'
