-- name: resolve_channel
-- A channel (JSON), its sealed credentials and its tenant's settings (JSON), else no row: $1 channel.
SELECT channel, sealed, settings, settings_version FROM resolve_channel($1)

-- name: list_channels
-- Channels (JSON) by id: $1 tenant or NULL for all, $2 the id before the page or NULL, $3 limit.
SELECT channel FROM list_channels($1, $2, $3) AS channel

-- name: find_channel
-- One (JSON) and its sealed credentials: $1 tenant or NULL for any, $2 channel.
SELECT channel, sealed FROM find_channel($1, $2)

-- name: create_channel
-- The new channel (JSON), NULL for an unknown tenant: $1 tenant, $2 id, $3 channel (JSON), $4 sealed, $5 by whom.
SELECT create_channel($1, $2, $3, $4, $5) AS channel

-- name: change_channel
-- $1 tenant, $2 id, $3 the version that is replaced, $4 channel (JSON), $5 sealed, $6 by whom. NULL when unknown.
SELECT stale, channel FROM change_channel($1, $2, $3, $4, $5, $6)

-- name: remove_channel
-- The channel that was (JSON) or NULL: $1 tenant or NULL for any, $2 id, $3 by whom.
SELECT remove_channel($1, $2, $3) AS channel

-- name: note_inbound
-- Statuses and what else came in: $1 tenant, $2 rows (JSON array). How many were written.
SELECT note_inbound($1, unless_erased_inbound($1, $2)) AS noted

-- name: list_inbound_kept
-- What came in and is no message (JSON), the newest first: $1 tenant, $2 channel, $3 limit.
SELECT kept FROM list_inbound_kept($1, $2, $3) AS kept

-- name: resume_channel
-- Ends its pause; the channel (JSON) or NULL: $1 tenant or NULL for any, $2 id, $3 by whom.
SELECT resume_channel($1, $2, $3) AS channel
