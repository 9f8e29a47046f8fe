#!lua
-- Put an ended job back into its queue as its next run, under its old id. Atomic because two operators, or an operator
-- and the worker that is just ending the job, may race here, and because readers must never find it half ended.
-- No allow-oom flag: as in admit, a full Redis refuses before the first write.
-- KEYS  1 queue · 2 job record · 3 arq job · 4 conversation list
-- ARGV  1 id · 2 run to start · 3 payload · 4 ttl_ms · 5 max_depth · 6 position: end | in_place · 7 mark: the same call
--       again has the same · 8 created_us of the first run · 9.. record fields, name and value in turn, of which
--       the first is the tenant
-- Returns {outcome, place in the conversation}; outcome: queued | repeated | live | newer | full
local queue, list, id, run = KEYS[1], KEYS[4], ARGV[1], tonumber(ARGV[2])
local known = redis.call('HMGET', KEYS[2], 'state', 'run', 'retry', 'seq')
local state, known_run = known[1], tonumber(known[2] or 0)

if state == 'queued' or state == 'running' or state == 'retrying' then
  if known_run == run and known[3] == ARGV[7] then return { 'repeated', redis.call('LPOS', list, id) or 0 } end
  return { 'live', 0 }
end
if state and known_run >= run then return { 'newer', 0 } end -- it has ended, but is still on its way to Postgres
if redis.call('EXISTS', KEYS[3]) == 1 then return { 'live', 0 } end
if redis.call('ZCARD', queue .. ':expiry') >= tonumber(ARGV[5]) then return { 'full', 0 } end

-- Where its age puts it: behind older ones, and behind a head that was started.
local now_ms = clock()
local tenant = ARGV[10]
local function insert_by_age(created_us)
  for index, other in ipairs(redis.call('LRANGE', list, 0, -1)) do
    local v = redis.call('HMGET', 'sb:job:' .. other, 'state', 'created_us', 'queue')
    if v[1] == 'queued' and tonumber(v[2]) > created_us then
      redis.call('LINSERT', list, 'BEFORE', other, id)
      if index == 1 then withdraw(v[3], tenant, other, now_ms) end -- it was eligible, and will be when we have ended
      return index - 1
    end
  end
  return redis.call('RPUSH', list, id) - 1
end

-- Events of the run before would end their readers, and count as this run's when a lost call is billed. Their numbers
-- are not used again; without a record to know them by, each run gets a million of its own.
local seq = known[4] or int((run - 1) * 1000000)
redis.call('DEL', KEYS[2], 'sb:events:' .. id, 'arq:retry:' .. id, 'arq:result:' .. id, 'arq:in-progress:' .. id)
redis.call('ZREM', 'arq:abort', id)

redis.call('HSET', KEYS[2], 'state', 'queued', 'queue', queue, 'created_us', ARGV[8],
  'run', ARGV[2], 'retry', ARGV[7], 'seq', seq, unpack(ARGV, 9))
redis.call('SET', KEYS[3], ARGV[3])
redis.call('ZADD', queue .. ':expiry', now_ms + tonumber(ARGV[4]), id)
local place = ARGV[6] == 'in_place' and insert_by_age(tonumber(ARGV[8])) or redis.call('RPUSH', list, id) - 1
if place == 0 then
  enter(queue, tenant, id, now_ms)
end
redis.call('PUBLISH', 'sb:notify:' .. id, 'e')
return { 'queued', place }
