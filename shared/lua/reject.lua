#!lua
-- Record a message that was refused (by a limit, a budget, a policy): a job that has ended `rejected`, to be looked at
-- like any other, whose end goes to Postgres with those of jobs that never started. Its sender is told at most once in a
-- while, whatever is refused meanwhile. Atomic because the same message may be delivered twice at once.
-- No allow-oom flag: a full Redis refuses before the first write.
-- KEYS  1 job record · 2 idempotency · 3 notice
-- ARGV  1 id · 2 payload · 3 user ('' = nobody) · 4 idempotency ttl_ms · 5 notice_ms · 6 error (JSON) · 7 result_ttl_s
--       8.. record fields, name and value in turn
-- Returns {outcome, id, notice (0 | 1)}; outcome: rejected | replayed (it is another job already)
local id = ARGV[1]
if redis.call('EXISTS', KEYS[1]) == 1 then return { 'rejected', id, 0 } end -- this very call again
local seen = redis.call('GET', KEYS[2])
if seen then return { 'replayed', string.match(seen, '^(%S+)'), 0 } end
local _, now_us = clock()
local notice = redis.call('SET', KEYS[3], id, 'PX', ARGV[5], 'NX') and 1 or 0
redis.call('SET', KEYS[2], id .. ' -', 'PX', ARGV[4])
redis.call('HSET', KEYS[1], 'state', 'rejected', 'created_us', now_us, 'finished_us', now_us, 'user', ARGV[3],
  'error', ARGV[6], unpack(ARGV, 8))
redis.call('XADD', 'sb:ended', '*', 'id', id, 'state', 'rejected', 'error', ARGV[6], 'run', '1', 'created_us', now_us,
  'finished_us', now_us, 'user', ARGV[3], 'payload', ARGV[2], 'taken_in', '{}', 'notice', notice)
announce_end(id, ARGV[7])
return { 'rejected', id, notice }
