#!lua flags=allow-oom,no-writes
-- One queue as of one instant, by the server's clock: what autoscalers and people look at.
-- KEYS  1 queue
-- Returns {never started, due, waiting for a retry, in flight, live workers, age in ms of the oldest one (-1: none),
-- jobs all live workers can run at once}; the oldest is looked for among the 20 that come next, by when it was accepted
local queue = KEYS[1]
local now_ms = clock()
local parked = 0 -- heads that wait in their tenant's own line: they could start now as well
for _, n in ipairs(redis.call('HVALS', queue .. ':parked')) do parked = parked + n end
local age_ms = -1
local due = redis.call('ZRANGEBYSCORE', queue, '(0', now_ms, 'WITHSCORES', 'LIMIT', 0, 20)
for i = 1, #due, 2 do
  local created_us = redis.call('HGET', 'sb:job:' .. due[i], 'created_us')
  age_ms = math.max(age_ms, math.floor(now_ms - (created_us and created_us / 1000 or due[i + 1])))
end
local workers, slots = redis.call('ZRANGEBYSCORE', queue .. ':leases', '(' .. int(now_ms), '+inf'), 0
for _, n in ipairs(#workers > 0 and redis.call('HMGET', queue .. ':slots', unpack(workers)) or {}) do
  slots = slots + (tonumber(n) or 0)
end
return {
  redis.call('ZCARD', queue .. ':expiry'),
  redis.call('ZCOUNT', queue, '(0', now_ms) + parked,
  redis.call('ZCARD', queue .. ':delayed'),
  redis.call('ZCOUNT', queue, '-inf', '(0'),
  #workers,
  age_ms,
  slots,
}
