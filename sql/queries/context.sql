-- name: turn_context_memory
-- turn_context with what is remembered, in one: $1 to $5 as there, $6 user or NULL, $7 what is said, $8 embedding model,
-- $9 its vector (as text) or NULL: by words only, $10 most tokens and $11 most hits of what is recalled.
SELECT c.ended, c.conversation_user, c.history, c.settings, c.tenant_known, c.spent_nano_usd, c.spent_tokens, m.memory
FROM turn_context($1, $2, $3, $4, $5) AS c,
    LATERAL (SELECT turn_memory($1, $4, coalesce($6, c.conversation_user), $5, $7, $8, $9, $10, $11) AS memory) AS m

-- name: turn_memory
-- The same without the context: $1 tenant, $2 conversation, $3 user, $4 messages of history, $5 to $9 as $7 to $11 there.
SELECT turn_memory($1, $2, $3, $4, $5, $6, $7, $8, $9) AS memory

-- name: claim_greeting
-- Whether the turn of this job greets the user: $1 tenant, $2 user, $3 job, $4 its subjects (JSON), $5 admitted (Unix µs).
SELECT claim_greeting($1, $2, $3, $4, $5) AS greets

-- name: claim_memory_tasks
-- Due tasks (JSON) for a while: $1 how many, $2 seconds.
SELECT task FROM claim_memory_tasks($1, $2) AS task

-- name: memory_task_work
-- What a task works on (JSON): $1 tenant, $2 conversation, $3 kind, $4 claim, $5 newest messages to leave, $6 most messages.
SELECT memory_task_work($1, $2, $3, $4, $5, $6) AS work

-- name: commit_summary
-- What it cost and the summary, in one transaction; what it cost stands whether it came too late or not. $1 tenant,
-- $2 conversation, $3 claim, $4 from, $5 up to, $6 text, $7 version, $8 model, $9 calls (JSON array).
SELECT commit_summary($1, $2, $3, $4, $5, $6, $7, $8) AS written FROM end_attempt($1, $9)

-- name: commit_facts
-- The same of facts. $1 tenant, $2 conversation, $3 claim, $4 from, $5 up to, $6 what was found (JSON), $7 calls.
SELECT commit_facts($1, $2, $3, $4, $5, $6) AS written FROM end_attempt($1, $7)

-- name: end_memory_task
-- $1 tenant, $2 conversation, $3 kind, $4 claim, $5 error (JSON) or NULL, $6 retry in seconds or NULL, $7 skip up to or NULL.
SELECT end_memory_task($1, $2, $3, $4, $5, $6, $7) AS ended

-- name: memory_task_load
-- Tasks that are due, by kind.
SELECT kind, due, failing, oldest_s FROM memory_task_load()

-- name: user_profile
-- A profile (JSON), NULL for a user nobody has heard of: $1 tenant, $2 user.
SELECT user_profile($1, $2) AS profile

-- name: change_profile
-- The profile as it is then (JSON): $1 tenant, $2 user, $3 entries (JSON), $4 names that go, $5 by whom.
SELECT change_profile($1, $2, $3, $4, $5) AS profile

-- name: list_facts
-- Facts (JSON), the newest first: $1 tenant, $2 user, $3 whether those of the past, too.
SELECT fact FROM list_facts($1, $2, $3) AS fact

-- name: put_fact
-- The fact (JSON) as a person writes it: $1 tenant, $2 user, $3 topic, $4 text, $5 by whom.
SELECT put_fact($1, $2, $3, $4, $5) AS fact

-- name: erase_facts
-- How many went: $1 tenant, $2 user, $3 topic or NULL for all.
SELECT erase_facts($1, $2, $3) AS erased
