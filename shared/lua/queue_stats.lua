#!lua flags=allow-oom,no-writes
-- One queue as of one instant, by the server's clock: what autoscalers and people look at.
-- KEYS  1 queue
-- Returns {never started, due, waiting for a retry, in flight, live workers, age in ms of the oldest due one (-1: none)}
local queue = KEYS[1]
local now_ms = clock()
local parked = 0 -- heads that wait in their tenant's own line: they could start now as well
for _, n in ipairs(redis.call('HVALS', queue .. ':parked')) do parked = parked + n end
local oldest = redis.call('ZRANGEBYSCORE', queue, '(0', now_ms, 'WITHSCORES', 'LIMIT', 0, 1)[2]
return {
  redis.call('ZCARD', queue .. ':expiry'),
  redis.call('ZCOUNT', queue, '(0', now_ms) + parked,
  redis.call('ZCARD', queue .. ':delayed'),
  redis.call('ZCOUNT', queue, '-inf', '(0'),
  redis.call('ZCOUNT', queue .. ':leases', '(' .. int(now_ms), '+inf'),
  oldest and now_ms - tonumber(oldest) or -1,
}
