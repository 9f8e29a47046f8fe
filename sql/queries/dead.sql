-- name: sees_all_tenants
-- Whether row-level security shows this role every tenant.
SELECT pg_has_role(current_user, 'switchboard_ops', 'USAGE') AS sees_all

-- name: list_dead_jobs
-- Summaries (JSON), the newest end first: $1 filter (JSON), $2 the row before the page (JSON) or NULL, $3 limit.
SELECT summary FROM list_dead_jobs($1, $2, $3) AS summary

-- name: open_dead_jobs
-- Tenant and id of open ones as they were accepted: $1 filter (JSON), $2 the job before or NULL, $3 limit.
SELECT tenant, job_id FROM open_dead_jobs($1, $2, $3)

-- name: count_dead_jobs
-- How many a filter matches: $1 filter (JSON).
SELECT count_dead_jobs($1) AS matching

-- name: dead_job
-- A dead job with all its runs (JSON) or NULL: $1 tenant or NULL, $2 job.
SELECT dead_job($1, $2) AS dead

-- name: lock_dead_job
-- The latest dead run of a job, locked until the transaction ends: $1 tenant or NULL, $2 job.
SELECT
    d.tenant_id AS tenant, d.run, d.disposition, d.payload, d.user_id, to_unix_us(d.created_at) AS created_us,
    dead_job_superseded(d) AS superseded
FROM lock_dead_job($1, $2) AS d

-- name: mark_dead_job_retried
-- $1 tenant, $2 job, $3 run, $4 by whom, $5 the run it started, $6 position, $7 changed payload (JSON) or NULL.
SELECT mark_dead_job_retried($1, $2, $3, $4, $5, $6, $7) AS marked

-- name: discard_dead_job
-- discarded, retried (too late) or NULL (unknown): $1 tenant or NULL, $2 job, $3 by whom.
SELECT outcome FROM discard_dead_job($1, $2, $3)

-- name: count_open_dead_jobs
-- Open dead jobs of every tenant by agent, for a role that sees them.
SELECT agent, count(*) AS jobs FROM dead_jobs WHERE disposition = 'open' GROUP BY agent
