-- name: take_memory_outbox
-- What waiting turns have said (JSON), for the caller's transaction; NULL: none is due. $1 turns at most.
SELECT take_memory_outbox($1) AS batch

-- name: write_memory
-- Pieces and chunks of a batch: $1 pieces (JSON), $2 chunks (JSON), $3 the turns' ids in the outbox, which leave it.
SELECT write_memory($1, $2, $3)

-- name: postpone_memory_outbox
-- Turns that could not be written: $1 ids, $2 why.
SELECT postpone_memory_outbox($1, $2)

-- name: recall
-- What memory has (JSON): $1 tenant, $2 user, $3 question, $4 model or NULL, $5 embedding (list of floats) or NULL,
-- $6 tokens, $7 hits at most, $8 conversation whose messages from $9 on stand in the prompt already.
SELECT recall($1, $2, $3, $4, $5::real[]::halfvec, $6, $7, $8, $9) AS recalled
