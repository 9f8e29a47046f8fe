-- name: begin_erasure
-- $1 tenant, $2 subject, $3 sealed, $4 by whom, $5 user or NULL, $6 conversations, $7 subjects, $8 before (µs), $9 lease s.
SELECT request, conversations
FROM begin_erasure($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: fence_erasure
-- $1 tenant, $2 request, $3 sealed, $4 subjects, $5 before (Unix µs).
SELECT fence_erasure($1, $2, $3, $4, $5) AS fenced

-- name: erasure_horizon
-- A transaction id younger than all there are.
SELECT erasure_horizon() AS horizon

-- name: erasure_passed
-- Whether every transaction is over that began to write before $1.
SELECT erasure_passed($1) AS passed

-- name: erase_again
-- Counts (JSON): $1 tenant, $2 user or NULL, $3 conversations, $4 before (Unix µs).
SELECT erase_again($1, $2, $3, $4) AS counts

-- name: erase_calls
-- One step through the ledger: $1 to $4 as there, $5 after this call, $6 how many rows are looked at.
SELECT next::text AS next, looked, erased FROM erase_calls($1, $2, $3, $4, $5, $6)

-- name: erase_jobs
-- One step through the jobs: $1 to $4 as there, $5 after this job, $6 how many rows are looked at, $7 delete what is found.
SELECT next::text AS next, looked, jobs::text[] AS jobs, counts FROM erase_jobs($1, $2, $3, $4, $5, $6, $7)

-- name: erase_apart
-- Counts (JSON): $1 tenant, $2 user or NULL, $3 address or NULL, $4 conversations, $5 before (Unix µs), $6 by whom.
SELECT erase_apart($1, $2, $3, $4, $5, $6) AS counts

-- name: note_erasure
-- The erasure (JSON), NULL when it is done already: $1 tenant, $2 request, $3 more counts (JSON), $4 done, $5 lease s.
SELECT note_erasure($1, $2, $3, $4, $5) AS erasure

-- name: find_erasure
-- One (JSON) or NULL: $1 tenant, $2 request.
SELECT find_erasure($1, $2) AS erasure

-- name: claim_erasures
-- Those nobody works on, ours for a while: $1 how many, $2 lease s. For a role that sees all tenants.
SELECT tenant, request::text AS request, sealed, state, erased_before_us, requested_by FROM claim_erasures($1, $2)

-- name: drop_old_fences
-- How many were older than anything they could stop. For a role that sees all tenants.
SELECT drop_old_fences() AS dropped

-- name: conversations_of
-- Ids of a user's conversations: $1 tenant, $2 user.
SELECT conversation FROM conversations_of($1, $2) AS conversation

-- name: list_users
-- Users (JSON) by id: $1 tenant, $2 the one before or NULL, $3 limit.
SELECT "user" FROM list_users($1, $2, $3) AS "user"

-- name: show_user
-- One (JSON) with how much there is of them, or NULL: $1 tenant, $2 user.
SELECT show_user($1, $2) AS "user"

-- name: export_user
-- Every row the books hold of a user (JSON): $1 tenant, $2 user, $3 address in a messenger or NULL.
SELECT line FROM export_user($1, $2, $3) AS line

-- name: spent_by_user
-- $1 tenant, $2 user, $3 the first moment of the month (UTC).
SELECT cost_nano_usd, tokens FROM spent_by_user($1, $2, $3)

-- name: claim_retention
-- Whether it is ours to do now: $1 seconds since the last time at least.
SELECT claim_retention($1) AS ours

-- name: retire_conversations
-- $1 tenant, $2 cutoff, $3 messages kept of each, $4 after this one, $5 how many are looked at, $6 most messages deleted.
SELECT next, messages, conversations FROM retire_conversations($1, $2, $3, $4, $5, $6)

-- name: cap_conversations
-- How many went: $1 tenant, $2 conversations kept of each user, $3 most of them deleted.
SELECT cap_conversations($1, $2, $3) AS deleted

-- name: retire_jobs
-- How many went: $1 tenant, $2 cutoff, $3 most of them.
SELECT retire_jobs($1, $2, $3) AS deleted

-- name: retire_rows
-- How many went: $1 tenant, $2 cutoff, $3 most of each table.
SELECT retire_rows($1, $2, $3) AS deleted
