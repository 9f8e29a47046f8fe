-- name: usage_report
-- Totals, then a line for each group (JSON): $1 filter (JSON), $2 by, $3 from, $4 before, $5 how many groups or NULL.
SELECT line FROM usage_report($1, $2, $3, $4, $5) AS line
