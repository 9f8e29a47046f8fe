-- name: turn_context
-- What a worker must know before a turn: $1 tenant, $2 job, $3 run, $4 conversation, $5 messages of history.
SELECT ended, conversation_user, history, settings, tenant_known, spent_nano_usd, spent_tokens
FROM turn_context($1, $2, $3, $4, $5)

-- name: commit_turn
-- A turn's whole outcome in one transaction: $1 tenant, $2 turn (JSON). The winner's record comes back.
SELECT won, record FROM commit_turn($1, $2)

-- name: end_job
-- The same for a run that did not succeed: $1 tenant, $2 end (JSON).
SELECT won, record FROM end_job($1, $2)

-- name: end_attempt
-- Ledger rows of an attempt that did not end its job: $1 tenant, $2 calls (JSON array). How many were new.
SELECT end_attempt($1, $2) AS added

-- name: job_record
-- An ended job's record (JSON) or NULL: $1 tenant, $2 job.
SELECT job_record($1, $2) AS record

-- name: turn_takeover
-- turn_context for a claim that is not a job's first: $1 to $5 as there, $6 the claim, which is registered.
SELECT ended, conversation_user, history, settings, tenant_known, spent_nano_usd, spent_tokens
FROM turn_takeover($1, $2, $3, $4, $5, $6)

-- name: turn_contexts
-- turn_context for several jobs, with what is remembered of nobody we know: $1 what is asked (a JSON array, see
-- 0031_contexts_together.sql), $2 most tokens and $3 most hits of it.
SELECT place, ended, conversation_user, history, settings, tenant_known, spent_nano_usd, spent_tokens, memory
FROM contexts_together($1, $2, $3)

-- name: commit_turns
-- Several plain turns in one transaction: $1 tenants, $2 for each of them a JSON array of turns. Their records come back.
SELECT job_id::text, record FROM commit_turns($1, $2)
