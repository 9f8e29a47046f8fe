-- name: claim_alert_minute
-- The moment (Unix us) to judge by, NULL when another process judges this minute; by ops.
SELECT claim_alert_minute() AS now_us

-- name: standing_alerts
-- Every rule (JSON) with its tenant's settings (JSON) or NULL, for a role that sees them.
SELECT tenant, name, rule, settings FROM standing_alerts()

-- name: cross_alert
-- Whether it is told now for the first time: $1 tenant or *, $2 crossing (JSON).
SELECT cross_alert($1, $2) AS told

-- name: end_alert
-- Crossings that are over: $1 tenant or *, $2 rule, $3 metric, $4 its thresholds that are not crossed. How many.
SELECT end_alert($1, $2, $3, $4) AS ended

-- name: spent_between
-- $1 tenant or *, $2 from, $3 before (Unix us).
SELECT cost_nano_usd, tokens, conversations FROM spent_between($1, $2, $3)

-- name: spending_users
-- $1 tenant, $2 from, $3 before (Unix us), $4 who spent at least so many nano-USD.
SELECT who, cost_nano_usd FROM spending_users($1, $2, $3, $4)

-- name: spending_conversations
-- $1 tenant, $2 with a call since (Unix us), $3 that cost at least so many nano-USD.
SELECT who, cost_nano_usd FROM spending_conversations($1, $2, $3)

-- name: jobs_between
-- $1 tenant or *, $2 from, $3 before (Unix us) their end.
SELECT ended, failed, succeeded, p50_s, p99_s FROM jobs_between($1, $2, $3)

-- name: users_between
-- How many users were served: $1 tenant or *, $2 from, $3 before (Unix us).
SELECT users_between($1, $2, $3) AS users

-- name: list_alerts
-- Rules (JSON) by name: $1 tenant or NULL for all, $2 this one only or NULL.
SELECT alert FROM list_alerts($1, $2) AS alert

-- name: put_alert
-- Whether it is new, and the rule (JSON) or NULL: $1 tenant or *, $2 name, $3 rule (JSON), $4 by whom, $5 at most.
SELECT made, alert FROM put_alert($1, $2, $3, $4, $5)

-- name: remove_alert
-- Whether there was one: $1 tenant or *, $2 name.
SELECT remove_alert($1, $2) AS removed

-- name: test_alert
-- The id of the event that is told, or NULL: $1 tenant or *, $2 rule, $3 by whom.
SELECT test_alert($1, $2, $3) AS event

-- name: list_alert_events
-- What was crossed (JSON), the newest first: $1 tenant or NULL for all, $2 the event before or NULL, $3 limit.
SELECT event FROM list_alert_events($1, $2, $3) AS event

-- name: alerts_judged_to
-- The moment (Unix us) up to which every rule was judged, or NULL; by ops.
SELECT alerts_judged_to() AS judged_us

-- name: note_alerts_judged
-- Every rule was judged by $1 (Unix us); by ops.
SELECT note_alerts_judged($1)
