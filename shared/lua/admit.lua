#!lua
-- Accept one chat job: idempotency, depth, ownership, policy, rates, budgets, then every write. Checked first, written
-- after, so a refusal leaves nothing. Atomic because two deliveries of one message, or two messages of one conversation,
-- may race here, and a worker that claims the one before; and because a window must not fill between look and entry.
-- No allow-oom flag: a full Redis refuses before the first write.
-- KEYS  1 queue · 2 job record · 3 arq job · 4 conversation list · 5 conversation owner · 6 idempotency (may be unused)
--       7.. rate windows (_rates.lua), then what budgets have spent (shared/budgets.py)
-- ARGV  1 id · 2 payload · 3 ttl_ms · 4 max_depth · 5 user ('' = whoever owns the conversation) · 6 owner_ttl_s
--       7 idempotency mode: none | key | sdk-first | sdk-retry · 8 idempotency ttl_ms · 9 fingerprint
--       10 policy: queue | merge | interrupt | reject · 11 merge window_ms · 12 longest merge window_ms
--       13 result_ttl_s · 14 number of windows · two for each further key: of a window its limit and length_us, of a
--       budget the nano-USD and the tokens at which it is spent ('': any amount) · then record fields, name and value in
--       turn, of which the first is the tenant, the second the agent
-- Returns {outcome, id, position, created_us, user, which, room, µs, room, µs ...}; outcome: accepted | replayed |
-- mismatch | owner | busy | full | limited | spent; which: of the windows or budgets said no, from 1 on; for each window
-- the entries it has room for now, and µs until there is room for one more
local queue, id, list, user, mode, policy = KEYS[1], ARGV[1], KEYS[4], ARGV[5], ARGV[7], ARGV[10]
local windows, fields = tonumber(ARGV[14]), 15 + 2 * (#KEYS - 6)
local result_ttl_s, tenant, agent = ARGV[13], ARGV[fields + 1], ARGV[fields + 3]
local now_ms, now_us = clock()

local rooms, newest, full = {}, {}, 0 -- full: the window whose wait is the longest
for n = 1, windows do
  local limit, length_us = tonumber(ARGV[13 + 2 * n]), tonumber(ARGV[14 + 2 * n])
  local room, left_us, last = look(KEYS[6 + n], limit, length_us, now_us)
  rooms[2 * n - 1], rooms[2 * n], newest[n] = room, left_us, last
  if room < 1 and (full == 0 or left_us > rooms[2 * full]) then full = n end
end
local function answer(outcome, job, which, position, created_us, owner)
  return { outcome, job, position or 0, created_us or '', owner or '', which or 0, unpack(rooms) }
end

if redis.call('EXISTS', KEYS[2]) == 1 then -- this very call again, its first answer was lost
  local v = redis.call('HMGET', KEYS[2], 'created_us', 'user')
  return answer('accepted', id, 0, redis.call('LPOS', list, id), v[1], v[2])
end

if mode == 'key' or mode == 'sdk-retry' then
  local seen = redis.call('GET', KEYS[6])
  if seen then
    local job, fingerprint = string.match(seen, '^(%S+) (%S+)$')
    return answer(fingerprint == ARGV[9] and 'replayed' or 'mismatch', job)
  end
end

if redis.call('ZCARD', queue .. ':expiry') >= tonumber(ARGV[4]) then return answer('full', id) end

local owner = redis.call('GET', KEYS[5])
if owner and user ~= '' and owner ~= user then return answer('owner', id) end
if user == '' then user = owner or '' end
if policy == 'reject' and redis.call('EXISTS', list) == 1 then return answer('busy', id) end
if policy == 'interrupt' and redis.call('LLEN', list) > BATCH then return answer('full', id) end
if full > 0 then return answer('limited', id, full) end
local function is_spent(counter, field, most)
  return most ~= '' and tonumber(redis.call('HGET', counter, field) or 0) >= tonumber(most)
end
for n = windows + 1, #KEYS - 6 do
  local counter, usd, tok = KEYS[6 + n], ARGV[13 + 2 * n], ARGV[14 + 2 * n]
  if is_spent(counter, 'usd', usd) or is_spent(counter, 'tok', tok) then return answer('spent', id, n - windows) end
end

local TAKEN_IN = 20 -- most messages one turn takes in
local INTERRUPTED = '{"code":"cancelled","message":"interrupted by a newer message"}'
local expires_ms, taken, has_place = now_ms + tonumber(ARGV[3]), 0, false

-- A merged job is over when we are; an interrupted one is so now.
local function mark(other, state)
  local record = 'sb:job:' .. other
  if state == 'merged' then
    redis.call('HSET', record, 'state', state, 'merged_into', id)
    redis.call('PUBLISH', 'sb:notify:' .. other, 'e')
  else
    redis.call('HDEL', record, 'merged_into')
    redis.call('HSET', record, 'state', state, 'finished_us', now_us, 'error', INTERRUPTED)
    number_end(other)
    redis.call('PUBLISH', 'sb:notify:' .. other, 't')
  end
end

-- Takes the last one of the conversation, which was not started, into our turn, with all it had taken in itself. They
-- live on in `sb:taken:<our id>`, as `<state> <id> <created_us> <taken in us> <payload>`, oldest first.
local function take_in(other, state, its_queue, created_us)
  local mine, theirs = 'sb:taken:' .. id, 'sb:taken:' .. other
  local payload = redis.call('GET', 'arq:job:' .. other) or ''
  local function add(its_id, its_created_us, its_payload)
    mark(its_id, state)
    redis.call('LPUSH', mine, table.concat({ state, its_id, its_created_us, now_us, its_payload }, ' '))
    taken = taken + 1
  end
  add(other, created_us, payload)
  local entry = redis.call('RPOP', theirs)
  while entry do
    local its_state, its_id, its_created_us, its_payload = string.match(entry, '^(%a+) (%S+) (%d+) %d+ (.*)$')
    if its_state == 'merged' then
      add(its_id, its_created_us, its_payload)
    else
      redis.call('LPUSH', mine, entry)
      taken = taken + 1
    end
    entry = redis.call('RPOP', theirs)
  end
  redis.call('RPOP', list)
  redis.call('DEL', 'arq:job:' .. other)
  redis.call('ZREM', 'arq:abort', other)
  if state == 'merged' then -- the earlier ones may wait as long as they were told
    expires_ms = math.max(expires_ms, tonumber(redis.call('ZSCORE', its_queue .. ':expiry', other) or 0))
  end
  redis.call('ZREM', its_queue .. ':expiry', other)
  if its_queue == queue then has_place = take_place(queue, tenant, other, id) or has_place
  else withdraw(its_queue, tenant, other, now_ms) end
end

-- Joins the message before us, if that one may be joined and was not started. Returns since when its set is waiting.
local function merge()
  local tail = redis.call('LINDEX', list, -1)
  if not tail then return now_ms end
  local v = redis.call('HMGET', 'sb:job:' .. tail, 'state', 'policy', 'agent', 'queue', 'created_us', 'first_ms', 'taken')
  if v[1] ~= 'queued' or v[2] ~= 'merge' or v[3] ~= agent or v[4] ~= queue then return now_ms end
  if tonumber(v[7] or 0) + 1 > TAKEN_IN then return now_ms end
  take_in(tail, 'merged', queue, v[5])
  return tonumber(v[6])
end

-- Stops what runs, and takes in what waits, from the end of the conversation on.
local function interrupt()
  for _ = 1, BATCH do -- as many as there can be
    local tail = redis.call('LINDEX', list, -1)
    if not tail then return end
    local v = redis.call('HMGET', 'sb:job:' .. tail, 'state', 'run', 'queue', 'created_us', 'worker', 'taken')
    if v[1] ~= 'queued' then return request_cancel(tail, v[1], v[3], v[5]) end
    if v[2] == '1' and taken + 1 + tonumber(v[6] or 0) <= TAKEN_IN then
      take_in(tail, 'cancelled', v[3], v[4])
    else
      end_unstarted(tail, 'cancelled', 'cancelled', 'interrupted by a newer message', now_us, result_ttl_s)
    end
  end
end

redis.call('HSET', KEYS[2], 'state', 'queued', 'queue', queue, 'created_us', now_us, 'user', user,
  unpack(ARGV, fields))
for n = 1, windows do
  let_in(KEYS[6 + n], tonumber(ARGV[14 + 2 * n]), now_us, newest[n])
  rooms[2 * n - 1] = rooms[2 * n - 1] - 1
end
redis.call('SET', KEYS[3], ARGV[2])
if user ~= '' then redis.call('SET', KEYS[5], user, 'EX', ARGV[6]) end
if mode ~= 'none' then redis.call('SET', KEYS[6], id .. ' ' .. ARGV[9], 'PX', ARGV[8]) end

local due_ms
if policy == 'merge' then
  local first_ms = merge()
  due_ms = math.min(now_ms + tonumber(ARGV[11]), first_ms + tonumber(ARGV[12]), (now_ms + expires_ms) / 2)
  redis.call('HSET', KEYS[2], 'policy', 'merge', 'first_ms', int(first_ms), 'due_ms', int(due_ms))
elseif policy == 'interrupt' then
  interrupt()
end
if taken > 0 then redis.call('HSET', KEYS[2], 'taken', taken) end
redis.call('ZADD', queue .. ':expiry', expires_ms, id)

local position = redis.call('RPUSH', list, id) - 1
if position == 0 and not has_place then make_eligible(queue, tenant, id, due_ms, now_ms) end
return answer('accepted', id, 0, position, now_us, user)
