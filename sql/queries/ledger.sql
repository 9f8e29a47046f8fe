-- name: make_llm_calls_partitions
-- Partitions of the ledger from this month on, by ops: $1 months. How many were made.
SELECT make_llm_calls_partitions(now(), $1) AS made
