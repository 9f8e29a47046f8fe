-- name: deployment
-- Id of this deployment, and its environment or NULL.
SELECT id::text AS id, environment FROM deployment

-- name: set_deployment_environment
-- By the owner, once; no row when there is one already: $1 environment.
UPDATE deployment SET environment = $1 WHERE environment IS NULL RETURNING environment

-- name: adopt_deployment
-- By the owner, in a copied database: a new id, $1 environment or NULL.
UPDATE deployment SET id = gen_random_uuid(), environment = $1, made_at = now() RETURNING id::text AS id
