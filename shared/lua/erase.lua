#!lua flags=allow-oom
-- Take a job of somebody who is being erased out of Redis. One that never started is gone at once, without an end: its
-- words must not reach the books. One that was started ends only through Postgres, which refuses to write it: it is
-- flagged, and gone when it is looked at again. What a later job has taken in of it goes too. Atomic against a claim, an
-- end, or a newer message that takes it in at the same instant.
-- KEYS  1 job record
-- ARGV  1 id · 2 tenant · 3 conversation · 4 user ('': nobody), as they were found · 5 erased before (Unix µs)
-- Returns {what became of it: gone | live | later (it was admitted after that) | changed (it is not that job any more),
-- and whether a call of it may be under way (1 | 0)}
local id, before_us = ARGV[1], tonumber(ARGV[5])
local v = redis.call('HMGET', KEYS[1], 'tenant', 'conv', 'user', 'state', 'queue', 'worker', 'created_us')
local state, queue = v[4], v[5]
if v[1] ~= ARGV[2] or v[2] ~= ARGV[3] or (v[3] or '') ~= ARGV[4] then return { 'changed', 0 } end
local started = (state == 'running' or state == 'retrying') and 1 or 0

local taken = 'sb:taken:' .. id
for _, entry in ipairs(redis.call('LRANGE', taken, 0, -1)) do
  if tonumber(string.match(entry, '^%a+ %S+ (%d+)')) <= before_us then redis.call('LREM', taken, 1, entry) end
end
if tonumber(v[7]) > before_us then return { 'later', started } end

redis.call('DEL', 'sb:events:' .. id)
if started == 1 then
  redis.call('HDEL', KEYS[1], 'metadata', 'asked', 'errors', 'error')
  request_cancel(id, state, queue, v[6])
  return { 'live', 1 }
end
if state == 'queued' then
  withdraw(queue, v[1], id, (clock()))
  redis.call('ZREM', queue .. ':expiry', id)
  advance(id, v[1], v[2])
end
redis.call('DEL', KEYS[1], taken, 'arq:job:' .. id, 'arq:retry:' .. id, 'arq:result:' .. id, 'arq:in-progress:' .. id)
redis.call('ZREM', 'arq:abort', id)
redis.call('PUBLISH', 'sb:notify:' .. id, 't')
return { 'gone', 0 }
