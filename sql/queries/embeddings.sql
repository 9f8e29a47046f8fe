-- name: embedding_models
-- Every embedding model there is or was, the active one first.
SELECT model_id, name, dimensions, floor, state, created_at, activated_at, retired_at
FROM embedding_models ORDER BY state <> 'active', model_id

-- name: active_embedding_model
-- The one that memory is searched by.
SELECT model_id, name FROM embedding_models WHERE state = 'active'

-- name: ensure_embedding_model
-- The first model of a deployment: $1 name, $2 dimensions, $3 floor. Its id, or NULL when there is one.
SELECT ensure_embedding_model($1, $2, $3) AS model_id

-- name: add_embedding_model
-- $1 name, $2 dimensions, $3 floor. The state it had before, NULL: new.
SELECT add_embedding_model($1, $2, $3) AS state

-- name: activate_embedding_model
-- $1 name, $2 also when it lacks something. Why not, or NULL.
SELECT activate_embedding_model($1, $2) AS refusal

-- name: retire_embedding_model
-- $1 name. Why not, or NULL.
SELECT retire_embedding_model($1) AS refusal

-- name: forget_embeddings
-- A step of retiring: $1 model, $2 tenant and $3 user behind which to go on, $4 about so many rows.
SELECT tenant, "user", deleted FROM forget_embeddings($1, $2, $3, $4)

-- name: embedding_model_gone
-- Retiring is over: $1 model.
SELECT embedding_model_gone($1) AS retired

-- name: embedding_progress
-- What a model has and lacks: $1 model.
SELECT unfilled, pending, failing, gap, (SELECT count(*) FROM memory_items) AS items
FROM embedding_progress($1)

-- name: embeddings_pending
-- Texts that wait, by model.
SELECT m.model_id, (SELECT count(*) FROM memory_pending AS p WHERE p.model_id = m.model_id) AS pending
FROM embedding_models AS m WHERE m.state IN ('active', 'building')

-- name: claim_embeddings
-- Texts to embed, with what their ledger row says: $1 model, $2 at most so many, $3 seconds until others may have them.
SELECT c.item_id, c.version, c.tenant_id, c.user_id, c.conversation_id, c.text, c.attempts,
    coalesce(j.agent, 'memory') AS agent, j.domain, j.feature
FROM claim_memory_texts($1, $2, $3) AS c LEFT JOIN LATERAL (
    SELECT agent, domain, feature FROM jobs
    WHERE tenant_id = c.tenant_id AND job_id = c.job_id ORDER BY run DESC LIMIT 1) AS j ON true

-- name: write_embeddings
-- $1 model, $2 items, $3 the versions that were embedded, $4 vectors as text.
SELECT write_memory_embeddings($1, $2, $3, $4) AS written

-- name: postpone_embeddings
-- $1 model, $2 items, $3 seconds, $4 why.
SELECT postpone_memory_texts($1, $2, $3, $4) AS postponed

-- name: fill_embeddings
-- Puts older items in line for a model: $1 model, $2 at most so many. How many were looked at.
SELECT fill_memory_pending($1, $2) AS looked_at

-- name: late_embeddings
-- What of one job memory has not embedded, or (`model` and `item_id` NULL) not taken in at all: $1 tenant, $2 job.
SELECT m.name AS model, p.item_id, p.attempts, p.due_at, p.last_error
FROM memory_pending AS p
JOIN embedding_models AS m USING (model_id)
JOIN memory_items AS i ON (i.tenant_id, i.user_id, i.item_id) = (p.tenant_id, p.user_id, p.item_id)
JOIN messages AS s ON (s.tenant_id, s.conversation_id, s.seq) = (i.tenant_id, i.conversation_id, i.seq)
WHERE s.tenant_id = $1 AND s.job_id = $2 AND i.kind = 'piece'
UNION ALL
SELECT NULL, NULL, o.attempts, o.due_at, o.last_error FROM memory_outbox AS o WHERE o.tenant_id = $1 AND o.job_id = $2
ORDER BY model, item_id

-- name: settings_of_tenants
-- Of those that are not disabled: $1 tenants.
SELECT tenant_id, settings FROM tenants WHERE tenant_id = ANY ($1) AND disabled_at IS NULL
