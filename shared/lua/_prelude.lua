-- Shared by every script: the server's clock, events, wake-up, and the two ways a job leaves its conversation.
-- Keys are described in shared/keys.py. Scripts build keys from ids, so one deployment needs one Redis primary.
-- Numbers that leave Lua as text go through int(): tostring() keeps 14 digits only.

local WAKE_TOKENS = 16 -- enough to wake a small fleet at once; a lost token costs latency, never a job
local HEADS = 64       -- most heads of one tenant that wait in a queue; further ones wait in the tenant's own line
local HEAD_START = 2000 -- ms by which a tenant's only waiting head goes before others
local BATCH = 100      -- most jobs one housekeeping step moves, so that no call holds the server for long

local function int(number) return string.format('%.0f', number) end

local function clock() -- Unix ms as a number, Unix µs as text
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000), t[1] .. string.format('%06d', t[2])
end

-- By what claims this worker holds jobs, in their order; false where it does not.
local function claims_of(queue, worker, ids)
  return #ids > 0 and redis.call('HMGET', queue .. ':held:' .. worker, unpack(ids)) or {}
end

local function wake(queue, n) -- n: how many jobs became due (nil: one)
  local tokens = {}
  for i = 1, math.min(n or 1, WAKE_TOKENS - redis.call('LLEN', queue .. ':wake')) do tokens[i] = '1' end
  if #tokens > 0 then redis.call('LPUSH', queue .. ':wake', unpack(tokens)) end
end

-- For callers that write the record anyway and put `seq` into it themselves.
local function append_numbered(id, seq, kind, data, max_events)
  redis.call('XADD', 'sb:events:' .. id, 'MAXLEN', max_events, int(seq) .. '-0', 't', kind, 'd', data)
end

local function append_event(id, kind, data, max_events) -- its number
  local seq = redis.call('HINCRBY', 'sb:job:' .. id, 'seq', 1)
  append_numbered(id, seq, kind, data, max_events)
  return seq
end

local function bump(hash, tenant, by)
  if redis.call('HINCRBY', hash, tenant, by) <= 0 then redis.call('HDEL', hash, tenant) end
end

-- Heads of conversations become eligible, behind everybody who is so already. A tenant with thousands of them keeps
-- most in a line of its own, so that a newcomer of another tenant waits for 64 of them at most, and for none when it has
-- nothing else waiting: then it goes before whatever has waited for less than the head start. `<queue>:heads` counts
-- those of each tenant that are due in the queue; a retry is one again when its wait is over.
local function enter_all(queue, tenant, ids, now_ms)
  local heads = tonumber(redis.call('HGET', queue .. ':heads', tenant) or 0)
  local waiting, parked = {}, {}
  for i, id in ipairs(ids) do
    local line = heads + i <= HEADS and waiting or parked
    line[#line + 1] = heads + i == 1 and now_ms - HEAD_START or now_ms
    line[#line + 1] = id
  end
  if #waiting > 0 then
    redis.call('ZADD', queue, unpack(waiting))
    bump(queue .. ':heads', tenant, #waiting / 2)
    wake(queue, #waiting / 2)
  end
  if #parked > 0 then
    redis.call('ZADD', queue .. ':parked:' .. tenant, unpack(parked))
    bump(queue .. ':parked', tenant, #parked / 2)
  end
end

local function enter(queue, tenant, id, now_ms)
  enter_all(queue, tenant, { id }, now_ms)
end

-- `n` of a tenant's heads wait in the queue no longer: the first of its line take their places, behind everybody.
-- Returns how many did; the caller wakes somebody for them.
local function made_room(queue, tenant, n, now_ms)
  bump(queue .. ':heads', tenant, -n)
  if redis.call('HEXISTS', queue .. ':parked', tenant) == 0 then return 0 end
  local room = HEADS - tonumber(redis.call('HGET', queue .. ':heads', tenant) or 0)
  if room <= 0 then return 0 end
  local line = redis.call('ZPOPMIN', queue .. ':parked:' .. tenant, room) -- id, score, id, score ...
  local waiting = {}
  for i = 1, #line, 2 do waiting[i], waiting[i + 1] = now_ms, line[i] end
  redis.call('ZADD', queue, unpack(waiting))
  bump(queue .. ':parked', tenant, -#line / 2)
  bump(queue .. ':heads', tenant, #line / 2)
  return #line / 2
end

-- The same for one that waits for more messages to join it until `due_ms` (nil: it does not).
local function make_eligible(queue, tenant, id, due_ms, now_ms)
  if due_ms and due_ms > now_ms then
    redis.call('ZADD', queue .. ':debounce', due_ms, id)
    wake(queue) -- a sleeper must learn of the new due time
  else
    enter(queue, tenant, id, now_ms)
  end
end

-- Takes a job that was not started out of wherever it waits, if it does.
local function withdraw(queue, tenant, id, now_ms)
  if redis.call('ZREM', queue, id) == 1 then
    if made_room(queue, tenant, 1, now_ms) > 0 then wake(queue) end
  elseif redis.call('ZREM', queue .. ':parked:' .. tenant, id) == 1 then
    bump(queue .. ':parked', tenant, -1)
  else
    redis.call('ZREM', queue .. ':debounce', id)
  end
end

-- Puts `heir` where `id` waits for its turn; false when it does not, or only waits for more messages.
local function take_place(queue, tenant, id, heir)
  for _, line in ipairs({ queue, queue .. ':parked:' .. tenant }) do
    local score = redis.call('ZSCORE', line, id)
    if score then
      redis.call('ZREM', line, id)
      redis.call('ZADD', line, score, heir)
      return true
    end
  end
  redis.call('ZREM', queue .. ':debounce', id)
  return false
end

-- A job that has ended for good leaves its conversation. Returns the next one, unless it was not its head: id, queue,
-- until when that one waits for more messages (ms; nil: it does not).
local function leave(id, tenant, conversation)
  local list = 'sb:conv:' .. tenant .. ':' .. conversation
  local first = redis.call('LPOP', list)
  if first ~= id then
    if first then redis.call('LPUSH', list, first) end
    redis.call('LREM', list, 1, id)
    return nil
  end
  local head = redis.call('LINDEX', list, 0)
  if not head then return nil end
  local v = redis.call('HMGET', 'sb:job:' .. head, 'queue', 'due_ms')
  return head, v[1], tonumber(v[2])
end

local function advance(id, tenant, conversation)
  local head, queue, due_ms = leave(id, tenant, conversation)
  if head then make_eligible(queue, tenant, head, due_ms, (clock())) end
end

-- The last event of a job is not stored: the record says its number, readers are given it from there (events.lua).
local function number_end(id)
  redis.call('HSET', 'sb:job:' .. id, 'ended', redis.call('HINCRBY', 'sb:job:' .. id, 'seq', 1))
end

-- What callers see of an end: the last event, the notice, and the clock that lets Redis forget.
local function announce_end(id, result_ttl_s)
  number_end(id)
  redis.call('EXPIRE', 'sb:job:' .. id, result_ttl_s)
  redis.call('EXPIRE', 'sb:events:' .. id, result_ttl_s)
  redis.call('PUBLISH', 'sb:notify:' .. id, 't')
end

-- What a job took in is over with it: merged ones show what became of it (`outcome`: record fields and values in turn,
-- `finished_us` among them), interrupted ones have said so already. Redis may forget them all now.
local function end_taken_in(id, outcome, result_ttl_s)
  for _, entry in ipairs(redis.call('LRANGE', 'sb:taken:' .. id, 0, -1)) do
    local state, other = string.match(entry, '^(%a+) (%S+)')
    if redis.call('EXISTS', 'sb:job:' .. other) == 0 then -- erased meanwhile: it must not come back
    elseif state == 'merged' then
      if #outcome > 0 then redis.call('HSET', 'sb:job:' .. other, unpack(outcome)) end
      announce_end(other, result_ttl_s)
    else
      redis.call('EXPIRE', 'sb:job:' .. other, result_ttl_s)
      redis.call('EXPIRE', 'sb:events:' .. other, result_ttl_s)
    end
  end
  redis.call('DEL', 'sb:taken:' .. id)
end

-- A retry is due: it stands in the queue at the place it had.
local function stand_again(queue, id)
  local v = redis.call('HMGET', 'sb:job:' .. id, 'score', 'tenant')
  if not v[1] or not redis.call('ZSCORE', queue, id) then return end
  redis.call('ZADD', queue, v[1], id)
  bump(queue .. ':heads', v[2], 1)
end

-- Asks for the end of a job that was started: it ends only through Postgres, by its worker or the next one to claim it.
local function request_cancel(id, state, queue, worker)
  redis.call('HSET', 'sb:job:' .. id, 'cancel', '1')
  if state == 'running' then
    redis.call('SADD', queue .. ':cancel:' .. worker, id) -- its worker's next beat brings it
  elseif redis.call('ZREM', queue .. ':delayed', id) == 1 then
    stand_again(queue, id) -- without waiting: its claim is handed out flagged cancelled
    wake(queue)
  end
end

-- Ends a job that no worker ever started. Its payload goes to sb:ended and stays until Postgres has it.
local function end_unstarted(id, state, code, message, now_us, result_ttl_s)
  local record = 'sb:job:' .. id
  local v = redis.call('HMGET', record, 'queue', 'tenant', 'conv', 'run', 'created_us', 'taken', 'user')
  local queue = v[1]
  if not queue then return end -- no such job
  local error = cjson.encode({ code = code, message = message })
  redis.call('XADD', 'sb:ended', '*', 'id', id, 'state', state, 'error', error, 'run', v[4] or '1', 'created_us', v[5],
    'finished_us', now_us, 'user', v[7] or '', 'payload', redis.call('GET', 'arq:job:' .. id) or '',
    'taken_in', v[6] and cjson.encode(redis.call('LRANGE', 'sb:taken:' .. id, 0, -1)) or '{}')
  if v[6] then end_taken_in(id, { 'error', error, 'finished_us', now_us }, result_ttl_s) end
  redis.call('HSET', record, 'state', state, 'finished_us', now_us, 'error', error)
  withdraw(queue, v[2], id, (clock()))
  redis.call('ZREM', queue .. ':expiry', id)
  redis.call('DEL', 'arq:job:' .. id)
  redis.call('ZREM', 'arq:abort', id)
  announce_end(id, result_ttl_s)
  advance(id, v[2], v[3])
end
