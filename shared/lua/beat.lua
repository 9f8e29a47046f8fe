#!lua flags=allow-oom
-- Renew the lease of one worker incarnation, O(1) whatever it holds. An expired lease is never revived: its jobs may
-- be running elsewhere, so the worker must stop them and come back under a new name.
-- KEYS  1 queue     ARGV  1 worker · 2 lease_ms · 3 verb: join | beat | leave · 4 slots (join: jobs it runs at once)
-- Returns {1, ids to cancel...} or {0} when the lease was lost
local leases, worker = KEYS[1] .. ':leases', ARGV[1]
local now_ms = clock()
if ARGV[3] == 'leave' then
  if redis.call('EXISTS', KEYS[1] .. ':held:' .. worker) == 0 then
    redis.call('ZREM', leases, worker)
    redis.call('HDEL', KEYS[1] .. ':slots', worker)
    redis.call('DEL', KEYS[1] .. ':cancel:' .. worker)
  else
    redis.call('ZADD', leases, 'XX', now_ms, worker) -- what it still holds is reaped at once
    wake(KEYS[1])
  end
  return { 1 }
end
if ARGV[3] == 'beat' then
  local deadline = redis.call('ZSCORE', leases, worker)
  if not deadline or tonumber(deadline) <= now_ms then return { 0 } end
end
redis.call('ZADD', leases, now_ms + tonumber(ARGV[2]), worker)
if ARGV[3] == 'join' then redis.call('HSET', KEYS[1] .. ':slots', worker, ARGV[4] or 0) end
return { 1, unpack(redis.call('SMEMBERS', KEYS[1] .. ':cancel:' .. worker)) }
