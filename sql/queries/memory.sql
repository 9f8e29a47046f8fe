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

-- name: claim_memory_texts
-- Texts that need a vector: $1 model, $2 how many, $3 seconds they are the caller's.
SELECT item_id, tenant_id, user_id, conversation_id, job_id, version, text, attempts FROM claim_memory_texts($1, $2, $3)

-- name: write_memory_embeddings
-- Vectors: $1 model, $2 items, $3 their versions as claimed, $4 vectors as text. How many were taken.
SELECT write_memory_embeddings($1, $2, $3, $4) AS written

-- name: postpone_memory_texts
-- Texts that could not be embedded: $1 model, $2 items, $3 seconds until the next try, $4 why.
SELECT postpone_memory_texts($1, $2, $3, $4)

-- name: fill_memory_pending
-- Notes which of the next $2 items lack a vector of model $1; how many it looked at, 0 at the end.
SELECT fill_memory_pending($1, $2) AS looked_at
