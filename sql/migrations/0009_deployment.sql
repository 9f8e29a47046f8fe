-- Which deployment this database is: one Redis goes with it, and one environment.
--
-- Processes compare `id` with what Redis holds and refuse to start on another deployment's. The release writes the
-- environment (staging, production) once; while it is NULL, as in development, any may use the database.
-- A copy of a database is still the same deployment: `switchboard migrate --adopt` makes it one of its own.

CREATE TABLE deployment (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    environment text CHECK (environment IN ('staging', 'production')),
    made_at timestamptz NOT NULL DEFAULT now()
);
REVOKE INSERT, UPDATE, DELETE ON deployment FROM switchboard_app, switchboard_ops;
INSERT INTO deployment DEFAULT VALUES;
