-- name: delivery_load
-- Open deliveries of all tenants, by kind and state.
SELECT kind, state, count(*) AS deliveries FROM (
    SELECT kind_of_delivery(d) AS kind, d.state FROM deliveries AS d
    WHERE d.state IN ('pending', 'retrying', 'unknown', 'parked')
    UNION ALL
    SELECT kind_of_delivery(d), d.state FROM deliveries AS d WHERE d.state = 'sending'
) AS open_ones GROUP BY kind, state

-- name: delivery_lag
-- For how many seconds delivery processes have left alone what is due; 0: nothing is.
SELECT greatest(0, coalesce(extract(epoch FROM now() - least(
    (SELECT min(ready_at) FROM receivers WHERE ready_at < 'infinity'),
    (SELECT min(created_at) FROM deliveries
        WHERE NOT seen AND state IN ('pending', 'retrying', 'unknown', 'parked'))
)), 0))::double precision AS lag_s

-- name: closed_ways
-- Channels that are paused, and endpoints that were disabled because nothing got through.
SELECT (SELECT count(*) FROM receivers WHERE paused_why IS NOT NULL) AS channels,
    (SELECT count(*) FROM endpoints WHERE disabled_why IN ('gone', 'failing') AND removed_at IS NULL) AS endpoints

-- name: memory_outbox_load
-- Turns that memory has not taken in: how many, how many of them could not be, and for how many seconds the oldest waits.
SELECT count(*) AS turns, count(*) FILTER (WHERE attempts > 0) AS failing,
    coalesce(extract(epoch FROM now() - min(created_at)), 0)::double precision AS oldest_s
FROM memory_outbox

-- name: erasure_load
-- Erasures that are not done: how many, and for how many seconds the oldest is wanted.
SELECT count(*) AS erasures, coalesce(extract(epoch FROM now() - min(requested_at)), 0)::double precision AS oldest_s
FROM erasures WHERE state <> 'done'
