#!lua flags=allow-oom
-- End attempts: of many jobs in one call (group commit), and claim the next ones in the same call when asked to.
-- Each is fenced by (worker, claim): one that is no longer ours changes nothing and reports LOST.
-- KEYS  1 queue
-- ARGV  1 worker · 2 max_events · 3 result_ttl_s · 4 claim n (0: none) · 5 in_progress_ms · then per job:
--       id · claim · verb · delay_ms · keep_ms (in-progress key outlives an end; -1: no) · posted (1: Postgres has
--       its ledger rows) · result (arq's; '' none) · result_ms (0: forever) · n · n × (record field, value)
--       verb  end      the job is over; the record's `state` says how
--             retry    again after delay_ms, at its own place
--             release  handed back at its place; the attempt does not count
-- Returns {OK | LOST per job, in order, as one list; then claim's answer, or false when none was asked for or the
-- worker has no lease}
local queue, worker, max_events, ttl_s = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local held = queue .. ':held:' .. worker
local now_ms = clock()

local function put_back(id, verb, delay_ms, tenant)
  if verb == 'release' then redis.call('DECR', 'arq:retry:' .. id) end
  if tenant then
    redis.call('HSET', 'sb:job:' .. id, 'state', 'retrying')
    bump(queue .. ':heads', tenant, 1)
  end
  if delay_ms > 0 then
    redis.call('ZADD', queue, now_ms + delay_ms, id)
    if tenant then redis.call('ZADD', queue .. ':delayed', now_ms + delay_ms, id) end
  else
    local score = string.gsub(redis.call('ZSCORE', queue, id) or int(now_ms), '^-', '')
    redis.call('ZADD', queue, score, id)
  end
  wake(queue) -- wakes a sleeper also to learn of the new due time
end

local function finish(id, verb, delay_ms, keep_ms, posted, result, result_ms, fields)
  local record = 'sb:job:' .. id
  local known = redis.call('HMGET', record, 'tenant', 'conv')
  redis.call('HDEL', held, id)
  redis.call('SREM', queue .. ':cancel:' .. worker, id)
  if verb == 'end' and keep_ms >= 0 then redis.call('PEXPIRE', 'arq:in-progress:' .. id, keep_ms)
  else redis.call('DEL', 'arq:in-progress:' .. id) end
  if posted == '1' then redis.call('DEL', 'sb:calls:' .. id) end
  if verb ~= 'end' then put_back(id, verb, delay_ms, known[1]) end
  if known[1] and #fields > 0 then redis.call('HSET', record, unpack(fields)) end

  if verb ~= 'end' then
    if known[1] then
      if verb == 'retry' then append_event(id, 'job.retrying', '{"retry_in_ms":' .. int(delay_ms) .. '}', max_events) end
      redis.call('PUBLISH', 'sb:notify:' .. id, 'e')
    end
    return
  end
  if result ~= '' then
    if result_ms > 0 then redis.call('SET', 'arq:result:' .. id, result, 'PX', result_ms)
    else redis.call('SET', 'arq:result:' .. id, result) end
  end
  redis.call('DEL', 'arq:job:' .. id, 'arq:retry:' .. id)
  redis.call('ZREM', 'arq:abort', id)
  redis.call('ZREM', queue, id)
  if known[1] then
    announce_end(id, redis.call('HGET', record, 'state'), max_events, ttl_s)
    advance(id, known[1], known[2])
  end
end

local verdicts, i = {}, 6
while ARGV[i] do
  local id, held_claim, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 8])
  if redis.call('HGET', held, id) == held_claim then
    local fields = {}
    for f = 1, 2 * n do fields[f] = ARGV[i + 8 + f] end
    finish(id, ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 6],
      tonumber(ARGV[i + 7]), fields)
    verdicts[#verdicts + 1] = 'OK'
  else
    verdicts[#verdicts + 1] = 'LOST'
  end
  i = i + 9 + 2 * n
end
local n = tonumber(ARGV[4])
if n == 0 or not has_lease(queue, worker) then return { verdicts, false } end
return { verdicts, claim(queue, worker, n, ARGV[5], max_events, ttl_s) }
