#!lua flags=allow-oom
-- Keep the ledger row of a model call in Redis from before the call until Postgres has it. The row written before the
-- call is what a crash books; the row written after it is exact. Limits and budgets join here.
-- KEYS  1 queue · 2 calls of the job     ARGV  1 worker · 2 id · 3 claim · then per call: call id · row (JSON)
-- Returns OK or LOST
if redis.call('HGET', KEYS[1] .. ':held:' .. ARGV[1], ARGV[2]) ~= ARGV[3] then return 'LOST' end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
return 'OK'
