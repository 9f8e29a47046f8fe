-- name: response_record
-- An ended job's record (JSON) with what was asked and whether it is forgotten, or NULL: $1 tenant, $2 job.
SELECT response_record($1, $2) AS record

-- name: response_input
-- What was asked in an ended job (JSON array of role and content, oldest first), or NULL: $1 tenant, $2 job.
SELECT response_input($1, $2) AS input

-- name: forget_response
-- The job is not shown as a response any more: $1 tenant, $2 job.
SELECT forget_response($1, $2)

-- name: branch_point
-- Whether an ended job is the newest of its conversation and what was said until then (JSON), or NULL: $1 tenant, $2 job,
-- $3 whether to branch off in any case, $4 how many messages at most.
SELECT branch_point($1, $2, $3, $4) AS point
