#!/bin/sh
# The three roles and the extension, by the superuser, on a server that is new. The pgvector image runs this once, when
# its data folder is empty; for a managed server run it by hand. Running it again sets the passwords again.
#
#   PGHOST, PGUSER, PGPASSWORD …          how psql reaches the server as a superuser (the image needs none of them)
#   POSTGRES_DB                           the database, which must exist
#   SWITCHBOARD_{OWNER,APP,OPS}_PASSWORD  the roles' passwords
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-${PGUSER:-postgres}}" \
    --dbname "${POSTGRES_DB:-switchboard}" <<'SQL'
\getenv owner_password SWITCHBOARD_OWNER_PASSWORD
\getenv app_password SWITCHBOARD_APP_PASSWORD
\getenv ops_password SWITCHBOARD_OPS_PASSWORD

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS', wanted)
FROM unnest(ARRAY['switchboard_owner', 'switchboard_app', 'switchboard_ops']) AS wanted
WHERE to_regrole(wanted) IS NULL \gexec

ALTER ROLE switchboard_owner PASSWORD :'owner_password';
ALTER ROLE switchboard_app PASSWORD :'app_password';
ALTER ROLE switchboard_ops PASSWORD :'ops_password';

SELECT format('ALTER DATABASE %I OWNER TO switchboard_owner', current_database()) \gexec
SELECT format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO switchboard_app, switchboard_ops', current_database()) \gexec
CREATE EXTENSION IF NOT EXISTS vector;
SQL
