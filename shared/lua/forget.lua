#!lua flags=allow-oom
-- Mark a job as one that is not shown as a response any more. Atomic against its expiry: a record that is gone must not
-- come back as a single field that nobody forgets.
-- KEYS  1 job record     ARGV  1 tenant
-- Returns 1, or 0 for a job that Redis does not know, or another tenant's
if redis.call('HGET', KEYS[1], 'tenant') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'forgotten', '1')
return 1
