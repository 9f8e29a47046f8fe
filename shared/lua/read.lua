#!lua flags=allow-oom,no-writes
-- The record of a job and its position in its conversation, as of one instant.
-- KEYS  1 job record     ARGV  1 id
-- Returns {fields and values in turn (empty: unknown), position or false}
local fields = redis.call('HGETALL', KEYS[1])
if #fields == 0 then return { fields, false } end
local v = redis.call('HMGET', KEYS[1], 'tenant', 'conv')
return { fields, redis.call('LPOS', 'sb:conv:' .. v[1] .. ':' .. v[2], ARGV[1]) }
