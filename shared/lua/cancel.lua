#!lua flags=allow-oom
-- Cancel a job. One that never started ends here; one that was started ends only through Postgres, so it is flagged
-- and its worker, or the next one to claim it, ends it. Atomic against a claim that takes it at the same instant.
-- KEYS  1 job record     ARGV  1 id · 2 tenant · 3 max_events · 4 result_ttl_s
-- Returns unknown | ended | cancelled | requested
local v = redis.call('HMGET', KEYS[1], 'tenant', 'state', 'queue', 'worker', 'score')
local state, queue, id = v[2], v[3], ARGV[1]
if v[1] ~= ARGV[2] then return 'unknown' end
if state == 'queued' then
  local _, now_us = clock()
  end_unstarted(id, 'cancelled', 'cancelled', 'cancelled before it was started', now_us, ARGV[3], ARGV[4])
  wake(queue) -- a worker takes the end to Postgres
  return 'cancelled'
end
if state ~= 'running' and state ~= 'retrying' then return 'ended' end
redis.call('HSET', KEYS[1], 'cancel', '1')
if state == 'running' then
  redis.call('SADD', queue .. ':cancel:' .. v[4], id) -- its worker's next beat brings it
elseif redis.call('ZREM', queue .. ':delayed', id) == 1 then
  redis.call('ZADD', queue, v[5], id) -- do not wait for the retry: its claim is handed out flagged cancelled
  wake(queue)
end
return 'requested'
