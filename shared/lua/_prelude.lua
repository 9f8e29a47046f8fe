-- Shared by every script: the server's clock, events, wake-up, and the two ways a job leaves its conversation.
-- Keys are described in shared/keys.py. Scripts build keys from ids, so one deployment needs one Redis primary.
-- Numbers that leave Lua as text go through int(): tostring() keeps 14 digits only.

local WAKE_TOKENS = 16 -- enough to wake a small fleet at once; a lost token costs latency, never a job
local HEADS = 64       -- most heads of one tenant that wait in a queue; further ones wait in the tenant's own line
local BATCH = 100      -- most jobs one housekeeping step moves, so that no call holds the server for long

local function int(number) return string.format('%.0f', number) end

local function clock() -- Unix ms as a number, Unix µs as text
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000), t[1] .. string.format('%06d', t[2])
end

local function wake(queue)
  if redis.call('LLEN', queue .. ':wake') < WAKE_TOKENS then redis.call('LPUSH', queue .. ':wake', '1') end
end

local function append_event(id, kind, data, max_events)
  local seq = redis.call('HINCRBY', 'sb:job:' .. id, 'seq', 1)
  redis.call('XADD', 'sb:events:' .. id, 'MAXLEN', max_events, int(seq) .. '-0', 't', kind, 'd', data)
end

local function bump(hash, tenant, by)
  if redis.call('HINCRBY', hash, tenant, by) <= 0 then redis.call('HDEL', hash, tenant) end
end

-- Puts a head into the queue; `<queue>:heads` counts those of each tenant that wait there, retries included.
local function stand(queue, tenant, id, score)
  redis.call('ZADD', queue, score, id)
  bump(queue .. ':heads', tenant, 1)
end

-- The head of a conversation becomes eligible, behind everybody who is so already. A tenant with thousands of them
-- keeps most in a line of its own: a newcomer of another tenant waits for 64 of them, not for all.
local function enter(queue, tenant, id, now_ms)
  redis.call('HSET', 'sb:job:' .. id, 'score', int(now_ms))
  if tonumber(redis.call('HGET', queue .. ':heads', tenant) or 0) < HEADS then
    stand(queue, tenant, id, now_ms)
    wake(queue)
  else
    redis.call('ZADD', queue .. ':parked:' .. tenant, now_ms, id)
    bump(queue .. ':parked', tenant, 1)
  end
end

-- One of a tenant's heads waits in the queue no longer: the first of its line takes the place, behind everybody.
local function made_room(queue, tenant, now_ms)
  bump(queue .. ':heads', tenant, -1)
  if redis.call('HEXISTS', queue .. ':parked', tenant) == 0 then return end
  if tonumber(redis.call('HGET', queue .. ':heads', tenant) or 0) >= HEADS then return end
  local id = redis.call('ZPOPMIN', queue .. ':parked:' .. tenant)[1]
  bump(queue .. ':parked', tenant, -1)
  redis.call('HSET', 'sb:job:' .. id, 'score', int(now_ms))
  stand(queue, tenant, id, now_ms)
  wake(queue)
end

-- Takes a job that was not started out of wherever it waits, if it does.
local function withdraw(queue, tenant, id, now_ms)
  if redis.call('ZREM', queue, id) == 1 then
    made_room(queue, tenant, now_ms)
  elseif redis.call('ZREM', queue .. ':parked:' .. tenant, id) == 1 then
    bump(queue .. ':parked', tenant, -1)
  end
end

-- Every job that has ended for good: its conversation's next one becomes eligible.
local function advance(id, tenant, conversation)
  local list = 'sb:conv:' .. tenant .. ':' .. conversation
  local was_head = redis.call('LINDEX', list, 0) == id
  redis.call('LREM', list, 1, id)
  if not was_head then return end
  local head = redis.call('LINDEX', list, 0)
  if not head then return end
  enter(redis.call('HGET', 'sb:job:' .. head, 'queue'), tenant, head, (clock()))
end

-- What callers see of an end: the last event, the notice, and the clock that lets Redis forget.
local function announce_end(id, state, max_events, result_ttl_s)
  append_event(id, 'job.ended', '{"state":"' .. state .. '"}', max_events)
  redis.call('EXPIRE', 'sb:job:' .. id, result_ttl_s)
  redis.call('EXPIRE', 'sb:events:' .. id, result_ttl_s)
  redis.call('PUBLISH', 'sb:notify:' .. id, 't')
end

-- Ends a job that no worker ever started. Its payload goes to sb:ended and stays until Postgres has it.
local function end_unstarted(id, state, code, message, now_us, max_events, result_ttl_s)
  local record = 'sb:job:' .. id
  local v = redis.call('HMGET', record, 'queue', 'tenant', 'conv', 'run', 'created_us')
  local queue = v[1]
  if not queue then return end -- no such job
  local error = cjson.encode({ code = code, message = message })
  redis.call('XADD', 'sb:ended', '*', 'id', id, 'state', state, 'error', error, 'run', v[4] or '1', 'created_us', v[5],
    'finished_us', now_us, 'payload', redis.call('GET', 'arq:job:' .. id) or '')
  redis.call('HSET', record, 'state', state, 'finished_us', now_us, 'error', error)
  withdraw(queue, v[2], id, (clock()))
  redis.call('ZREM', queue .. ':expiry', id)
  redis.call('DEL', 'arq:job:' .. id, 'arq:retry:' .. id)
  announce_end(id, state, max_events, result_ttl_s)
  advance(id, v[2], v[3])
end
