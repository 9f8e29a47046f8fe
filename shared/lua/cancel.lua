#!lua flags=allow-oom
-- Cancel a job. One that never started ends here; one that was started ends only through Postgres, so it is flagged
-- and its worker, or the next one to claim it, ends it. Atomic against a claim that takes it at the same instant.
-- KEYS  1 job record     ARGV  1 id · 2 tenant · 3 result_ttl_s
-- Returns unknown | ended | cancelled | requested
local v = redis.call('HMGET', KEYS[1], 'tenant', 'state', 'queue', 'worker')
local state, queue, id = v[2], v[3], ARGV[1]
if v[1] ~= ARGV[2] then return 'unknown' end
if state == 'queued' then
  local _, now_us = clock()
  end_unstarted(id, 'cancelled', 'cancelled', 'cancelled before it was started', now_us, ARGV[3])
  wake(queue) -- a worker takes the end to Postgres
  return 'cancelled'
end
if state ~= 'running' and state ~= 'retrying' then return 'ended' end
request_cancel(id, state, queue, v[4])
return 'requested'
