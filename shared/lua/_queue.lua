-- Taking jobs: what claim does by itself and finish does in the same call.

-- Jobs of workers whose lease is over go back to their original place. The attempt they made stays counted.
local function reap(queue, now_ms)
  local moved = 0
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':leases', '-inf', now_ms, 'LIMIT', 0, 10)) do
    local held = queue .. ':held:' .. worker
    for _, id in ipairs(redis.call('HRANDFIELD', held, BATCH)) do
      local score = redis.call('ZSCORE', queue, id)
      local tenant = redis.call('HGET', 'sb:job:' .. id, 'tenant')
      if score and string.sub(score, 1, 1) == '-' then
        redis.call('ZADD', queue, string.sub(score, 2), id)
        if tenant then bump(queue .. ':heads', tenant, 1) end
      end
      redis.call('DEL', 'arq:in-progress:' .. id)
      redis.call('HDEL', held, id)
      if tenant then redis.call('HSET', 'sb:job:' .. id, 'state', 'retrying') end
      moved = moved + 1
    end
    if redis.call('EXISTS', held) == 0 then
      redis.call('ZREM', queue .. ':leases', worker)
      redis.call('DEL', queue .. ':cancel:' .. worker)
    end
    if moved >= BATCH then break end
  end
  return moved
end

-- Retries whose wait is over return to the place they had.
local function promote(queue, now_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':delayed', '-inf', now_ms, 'LIMIT', 0, BATCH)) do
    redis.call('ZREM', queue .. ':delayed', id)
    local score = redis.call('HGET', 'sb:job:' .. id, 'score')
    if score then redis.call('ZADD', queue, 'XX', score, id) end
  end
end

local function expire(queue, now_ms, now_us, max_events, result_ttl_s)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':expiry', '-inf', now_ms, 'LIMIT', 0, BATCH)) do
    redis.call('ZREM', queue .. ':expiry', id) -- also when nothing else is left of it
    end_unstarted(id, 'expired', 'expired', 'not started within its time to live', now_us, max_events, result_ttl_s)
  end
end

-- Marks one job as running: counts the attempt, fences it to (worker, claim), tells its readers. The claim is the
-- moment it was taken, Unix µs: no two of one job are equal and a later one is greater, also after a data loss.
local function start(queue, worker, id, score, now_ms, now_us, max_events)
  local attempt = redis.call('INCR', 'arq:retry:' .. id)
  redis.call('EXPIRE', 'arq:retry:' .. id, 88400)
  local record = 'sb:job:' .. id
  local v = redis.call('HMGET', record, 'created_us', 'run', 'started_us', 'cancel', 'user', 'errors', 'seq', 'score',
    'tenant')
  redis.call('ZADD', queue, '-' .. (v[8] or score), id)
  redis.call('HSET', queue .. ':held:' .. worker, id, now_us)
  local open_calls = {}
  if v[1] then
    redis.call('ZREM', queue .. ':expiry', id)
    redis.call('ZREM', queue .. ':delayed', id) -- a retry that promote() did not get to
    made_room(queue, v[9], now_ms)
    redis.call('HSET', record, 'state', 'running', 'attempts', attempt, 'worker', worker, 'started_us', v[3] or now_us)
    if v[7] then append_event(id, 'attempt.reset', '{"attempt":' .. attempt .. '}', max_events) end
    append_event(id, 'job.started', '{"attempt":' .. attempt .. '}', max_events)
    redis.call('PUBLISH', 'sb:notify:' .. id, 'e')
    open_calls = redis.call('HGETALL', 'sb:calls:' .. id)
  end
  local payload = redis.call('GET', 'arq:job:' .. id)
  return { id, score, attempt, payload, v[1], v[2], v[3] or now_us, v[4], v[5], v[6],
    open_calls }
end

-- A worker without a lease must not claim: nobody would ever take its jobs back.
local function has_lease(queue, worker)
  local deadline = redis.call('ZSCORE', queue .. ':leases', worker)
  return deadline and tonumber(deadline) > clock()
end

-- Up to `n` due jobs for `worker`, after the housekeeping that may make some due; with `only`, none but those ids.
-- Returns {ms until the next thing is due (-1: nothing known), ends waiting for Postgres (0 | 1), jobs held now, claim,
-- job...} where a job is {id, score, attempt, payload, created_us, run, first started_us, cancel flag, user,
-- errors of earlier attempts (JSON), open calls}
local function claim(queue, worker, n, in_progress_ms, max_events, result_ttl_s, only)
  local now_ms, now_us = clock()
  local reaped = reap(queue, now_ms)
  promote(queue, now_ms)
  expire(queue, now_ms, now_us, max_events, result_ttl_s)

  local jobs, skipped = {}, 0
  local function take(id, score)
    if redis.call('SET', 'arq:in-progress:' .. id, worker, 'PX', in_progress_ms, 'NX') then
      jobs[#jobs + 1] = start(queue, worker, id, score, now_ms, now_us, max_events)
    else
      skipped = skipped + 1 -- a stock arq worker runs it
    end
  end
  for _, id in ipairs(only or {}) do
    local score = redis.call('ZSCORE', queue, id)
    if score and tonumber(score) > 0 and tonumber(score) <= now_ms and #jobs < n then take(id, score) end
  end
  while not only and #jobs < n and skipped < 1000 do
    local due = redis.call('ZRANGEBYSCORE', queue, '(0', now_ms, 'WITHSCORES', 'LIMIT', skipped, n - #jobs)
    if #due == 0 then break end
    for i = 1, #due, 2 do take(due[i], due[i + 1]) end
  end

  local next_ms = -1
  local function earliest(score) -- of the next thing to happen
    if score and (next_ms < 0 or score - now_ms < next_ms) then next_ms = math.max(0, score - now_ms) end
  end
  if #jobs == n or reaped >= BATCH then
    next_ms = 0
  else
    earliest(redis.call('ZRANGEBYSCORE', queue, '(' .. int(now_ms), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
    earliest(redis.call('ZRANGE', queue .. ':expiry', 0, 0, 'WITHSCORES')[2])
    earliest(redis.call('ZRANGE', queue .. ':leases', 0, 0, 'WITHSCORES')[2])
  end
  local held = redis.call('HLEN', queue .. ':held:' .. worker)
  return { next_ms, redis.call('XLEN', 'sb:ended') > 0 and 1 or 0, held, now_us, unpack(jobs) }
end
