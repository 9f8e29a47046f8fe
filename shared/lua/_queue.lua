-- Taking jobs: what claim does by itself and finish does in the same call.

-- Jobs of workers whose lease is over go back to their original place. The attempt they made stays counted.
local function reap(queue, now_ms)
  local moved = 0
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':leases', '-inf', now_ms, 'LIMIT', 0, 10)) do
    local held = queue .. ':held:' .. worker
    for _, id in ipairs(redis.call('HRANDFIELD', held, BATCH - moved)) do
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
      redis.call('HDEL', queue .. ':slots', worker)
      redis.call('DEL', queue .. ':cancel:' .. worker)
    end
    if moved >= BATCH then break end
  end
  return moved
end

-- Retries whose wait is over return to the place they had; those that waited for more messages become eligible.
local function promote(queue, now_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':debounce', '-inf', now_ms, 'LIMIT', 0, BATCH)) do
    redis.call('ZREM', queue .. ':debounce', id)
    local v = redis.call('HMGET', 'sb:job:' .. id, 'tenant', 'state')
    if v[2] == 'queued' then enter(queue, v[1], id, now_ms) end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':delayed', '-inf', now_ms, 'LIMIT', 0, BATCH)) do
    redis.call('ZREM', queue .. ':delayed', id)
    stand_again(queue, id)
  end
end

local function expire(queue, now_ms, now_us, result_ttl_s)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':expiry', '-inf', now_ms, 'LIMIT', 0, BATCH)) do
    redis.call('ZREM', queue .. ':expiry', id) -- also when nothing else is left of it
    end_unstarted(id, 'expired', 'expired', 'not started within its time to live', now_us, result_ttl_s)
  end
end

-- How a turn's record shows that an attempt runs; the attempt's number. The first start is not stored as an event:
-- the record tells it (events.lua).
local function start_turn(id, v, by, now_us, max_events)
  local attempt, seq = tonumber(v.attempts or 0) + 1, 1
  if v.seq then
    local data = '{"attempt":' .. attempt .. '}'
    seq = tonumber(v.seq) + 2
    append_numbered(id, seq - 1, 'attempt.reset', data, max_events)
    append_numbered(id, seq, 'job.started', data, max_events)
  end
  redis.call('HSET', 'sb:job:' .. id, 'state', 'running', 'attempts', attempt, 'worker', by,
    'started_us', v.started_us or now_us, 'seq', int(seq))
  redis.call('PUBLISH', 'sb:notify:' .. id, 'e')
  return attempt
end

-- The same for a job that arq's own client made; nil when a stock arq worker runs it.
local function start_plain(id, by, in_progress_ms)
  if not redis.call('SET', 'arq:in-progress:' .. id, by, 'PX', in_progress_ms, 'NX') then return nil end
  if redis.call('SET', 'arq:retry:' .. id, 1, 'EX', 88400, 'NX') then return 1 end
  redis.call('EXPIRE', 'arq:retry:' .. id, 88400)
  return redis.call('INCR', 'arq:retry:' .. id)
end

local function record_of(id)
  local v = redis.call('HMGET', 'sb:job:' .. id, 'created_us', 'run', 'started_us', 'cancel', 'user', 'errors', 'seq',
    'score', 'tenant', 'taken', 'attempts')
  return { created_us = v[1], run = v[2], started_us = v[3], cancel = v[4], user = v[5], errors = v[6], seq = v[7],
    score = v[8], tenant = v[9], taken = v[10], attempts = v[11] }
end

local function each(prefix, ids) -- one key per id, as arguments
  local names = {}
  for i, id in ipairs(ids) do names[i] = prefix .. id end
  return unpack(names)
end

-- What turns that start have in common, one command for all of them. They wait no longer: neither for their time to
-- live, nor in their tenant's place (`tenants`: how many of each). Nobody asks whether a stock worker runs them: it
-- could not.
local function start_turns(queue, by, turns, tenants, now_ms)
  if #turns == 0 then return 0 end
  local in_progress, let_in = {}, 0
  for i, id in ipairs(turns) do in_progress[2 * i - 1], in_progress[2 * i] = 'arq:in-progress:' .. id, by end
  redis.call('MSET', unpack(in_progress))
  redis.call('ZREM', queue .. ':expiry', unpack(turns))
  for tenant, n in pairs(tenants) do let_in = let_in + made_room(queue, tenant, n, now_ms) end
  return let_in
end

-- Marks due jobs (ids and scores in turn) as running: counts the attempts, fences them to (worker, claim), tells their
-- readers. The claim is the moment they were taken, Unix µs: no two of one job are equal and a later one is greater,
-- also after a data loss. Appends them to `jobs`; returns how many were passed over, and how many parked heads became
-- due instead.
local function start(queue, by, due, jobs, now_ms, now_us, in_progress_ms, max_events)
  local ids, places, held, records, turns, tenants = {}, {}, {}, {}, {}, {}
  local first = #jobs
  for i = 1, #due, 2 do
    local id, score, v = due[i], due[i + 1], record_of(due[i])
    local attempt
    if v.created_us then
      attempt = start_turn(id, v, by, now_us, max_events)
      turns[#turns + 1] = id
      -- a retry that promote() did not get to is not counted among those that wait
      local counted = not (v.started_us and redis.call('ZREM', queue .. ':delayed', id) == 1)
      if counted then tenants[v.tenant] = (tenants[v.tenant] or 0) + 1 end
    else
      attempt = start_plain(id, by, in_progress_ms)
    end
    if attempt then
      local n = #ids + 1
      ids[n], records[n], places[2 * n - 1], places[2 * n] = id, v, '-' .. (v.score or score), id
      held[2 * n - 1], held[2 * n] = id, now_us
      jobs[first + n] = { id, score, attempt, false, v.created_us, v.run, v.started_us or now_us, v.cancel, v.user,
        v.errors, {}, {} }
    end
  end
  if #ids == 0 then return #due / 2, 0 end
  redis.call('ZADD', queue, unpack(places))
  redis.call('HSET', queue .. ':held:' .. by, unpack(held))
  local payloads = redis.call('MGET', each('arq:job:', ids))
  local calls_left = #turns > 0 and redis.call('EXISTS', each('sb:calls:', turns)) > 0
  for n, id in ipairs(ids) do
    local job = jobs[first + n]
    job[4] = payloads[n]
    if calls_left then job[11] = redis.call('HGETALL', 'sb:calls:' .. id) end
    if records[n].taken then job[12] = redis.call('LRANGE', 'sb:taken:' .. id, 0, -1) end
  end
  return #due / 2 - #ids, start_turns(queue, by, turns, tenants, now_ms)
end

-- A worker without a lease must not claim: nobody would ever take its jobs back.
local function has_lease(queue, worker)
  local deadline = redis.call('ZSCORE', queue .. ':leases', worker)
  return deadline and tonumber(deadline) > clock()
end

-- Up to `n` due jobs for `worker`, after the housekeeping that may make some due; with `only`, none but those ids.
-- Returns {ms until the next thing is due (-1: nothing known), ends or inbox waiting for Postgres (0 | 1), jobs held now, claim,
-- job...} where a job is {id, score, attempt, payload, created_us, run, first started_us, cancel flag, user,
-- errors of earlier attempts (JSON), open calls, messages taken in (see admit)}
local function claim(queue, worker, n, in_progress_ms, max_events, result_ttl_s, only)
  local now_ms, now_us = clock()
  local reaped = reap(queue, now_ms)
  promote(queue, now_ms)
  expire(queue, now_ms, now_us, result_ttl_s)

  local jobs, skipped, let_in = {}, 0, 0
  local function take(due)
    local passed, more = start(queue, worker, due, jobs, now_ms, now_us, in_progress_ms, max_events)
    skipped, let_in = skipped + passed, let_in + more
  end
  for _, id in ipairs(only or {}) do
    local score = redis.call('ZSCORE', queue, id)
    if score and tonumber(score) > 0 and tonumber(score) <= now_ms and #jobs < n then take({ id, score }) end
  end
  while not only and #jobs < n and skipped < 1000 do
    local due = redis.call('ZRANGEBYSCORE', queue, '(0', now_ms, 'WITHSCORES', 'LIMIT', skipped, n - #jobs)
    if #due == 0 then break end
    take(due)
  end
  if let_in > 0 and #jobs == n then wake(queue, let_in) end -- some of them were left for others

  local next_ms = -1
  local function earliest(score) -- of the next thing to happen
    if score and (next_ms < 0 or score - now_ms < next_ms) then next_ms = math.max(0, score - now_ms) end
  end
  if #jobs == n or reaped >= BATCH then
    next_ms = 0
  else
    earliest(redis.call('ZRANGEBYSCORE', queue, '(' .. int(now_ms), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
    earliest(redis.call('ZRANGE', queue .. ':debounce', 0, 0, 'WITHSCORES')[2])
    earliest(redis.call('ZRANGE', queue .. ':expiry', 0, 0, 'WITHSCORES')[2])
    earliest(redis.call('ZRANGE', queue .. ':leases', 0, 0, 'WITHSCORES')[2])
  end
  local held = redis.call('HLEN', queue .. ':held:' .. worker)
  local waiting = redis.call('XLEN', 'sb:ended') + redis.call('XLEN', 'sb:inbox')
  return { next_ms, waiting > 0 and 1 or 0, held, now_us, unpack(jobs) }
end
