-- name: recover_deliveries
-- Rows whose process vanished while sending, by ops: $1 after how many failures one is given up. How many.
SELECT recover_deliveries($1) AS recovered

-- name: park_deliveries
-- Heads that failed for too long let the rows behind them pass, by ops: $1 seconds.
SELECT park_deliveries($1) AS parked

-- name: claim_deliveries
-- Due ones (JSON), by ops: $1 free slots, $2 each receiver, $3 lease in s, $4 failures that trip it, $5 each channel,
-- $6 what each tenant has under way in this process (JSON).
SELECT claimed || jsonb_build_object('format', delivery_format(claimed)) AS delivery
FROM claim_deliveries($1, $2, $3, $4, $5, $6) AS claimed

-- name: look_everywhere
-- Marks receivers that are due and were not marked, by ops. How many.
SELECT look_everywhere() AS missed

-- name: end_delivery_attempt
-- $1 tenant, $2 delivery, $3 attempt, $4 outcome (JSON), $5 failures that trip, $6 first pause in s, $7 give up after s.
SELECT end_delivery_attempt($1, $2, $3, $4, $5, $6, $7) AS recorded

-- name: plan_parts
-- Whether it is ours: $1 tenant, $2 delivery, $3 attempt, $4 first part that is cut anew, $5 form, $6 texts.
SELECT plan_parts($1, $2, $3, $4, $5, $6) AS ours

-- name: begin_part
-- What to do (JSON): $1 tenant, $2 delivery, $3 attempt, $4 part, $5 channel, $6 hold what is in doubt, $7 paces (JSON),
-- $8 patience in µs, $9 lease in s.
SELECT begin_part($1, $2, $3, $4, $5, $6, $7, $8, $9) AS answer

-- name: end_part
-- Whether it was still ours: $1 tenant, $2 delivery, $3 attempt, $4 part, $5 its state, $6 the provider's id or NULL.
SELECT end_part($1, $2, $3, $4, $5, $6) AS ours

-- name: end_reply_attempt
-- $1 tenant, $2 delivery, $3 attempt, $4 outcome (JSON), $5 failures that trip, $6 first pause in s.
SELECT end_reply_attempt($1, $2, $3, $4, $5, $6) AS recorded

-- name: list_deliveries
-- Summaries (JSON), the newest first: $1 filter (JSON), $2 the delivery before the page or NULL, $3 limit.
SELECT delivery FROM list_deliveries($1, $2, $3) AS delivery

-- name: delivery_detail
-- One with its body and its log (JSON) or NULL: $1 tenant or NULL, $2 delivery.
SELECT detail || jsonb_build_object('format', delivery_format(detail)) AS delivery FROM delivery_detail($1, $2) AS detail

-- name: replay_delivery
-- queued, sending (too early) or NULL (unknown): $1 tenant or NULL, $2 delivery.
SELECT replay_delivery($1, $2) AS outcome

-- name: list_endpoints
-- Endpoints (JSON), the newest first: $1 tenant or NULL for all, $2 this one only or NULL.
SELECT endpoint FROM list_endpoints($1, $2) AS endpoint

-- name: create_endpoint
-- The new one (JSON) or NULL: $1 tenant, $2 url, $3 description, $4 event types, $5 by whom, $6 how many there may be,
-- $7 format.
SELECT create_endpoint($1, $2, $3, $4, $5, $6, $7) AS endpoint

-- name: change_endpoint
-- The changed one (JSON) or NULL: $1 tenant, $2 endpoint, $3 what changes (JSON).
SELECT change_endpoint($1, $2, $3) AS endpoint

-- name: remove_endpoint
-- Whether there was one: $1 tenant, $2 endpoint.
SELECT remove_endpoint($1, $2) AS removed

-- name: rotate_signing_secret
-- The serial of the new secret or NULL: $1 tenant, $2 endpoint or NULL for callback URLs, $3 overlap in s.
SELECT rotate_signing_secret($1, $2, $3) AS serial

-- name: forget_deliveries
-- Ended ones of long ago and their log go, by ops: $1 days, $2 how many at most. How many did.
SELECT forget_deliveries($1, $2) AS gone
