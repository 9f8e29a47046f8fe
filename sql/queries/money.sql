-- name: open_money_first
-- Whether counters of spent money never stood before; true once in the life of a database.
SELECT open_money_first() AS first

-- name: book_calls
-- Adds ledger rows and returns what the ledger holds for them: $1 tenant, $2 calls (JSON array).
SELECT call_id::text AS call_id, cost_nano_usd, tokens FROM book_calls($1, $2)

-- name: conversation_spent
-- All that a conversation has ever cost: $1 tenant, $2 conversation.
SELECT cost_nano_usd, tokens FROM conversation_spent($1, $2)

-- name: spent_sums
-- The sums behind every counter of a day or month that Redis may still have: $1 now.
SELECT kind, tenant, "user", period, cost_nano_usd, tokens FROM spent_sums($1)
