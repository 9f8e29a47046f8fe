#!lua flags=allow-oom
-- End attempts: of many jobs in one call (group commit), and claim the next ones in the same call when asked to.
-- Each is fenced by (worker, claim): one that is no longer ours changes nothing and reports LOST.
-- KEYS  1 queue
-- ARGV  1 worker · 2 max_events · 3 result_ttl_s · 4 claim n (0: none) · 5 in_progress_ms · then per job:
--       id · claim · verb · delay_ms · keep_ms (in-progress key outlives an end; -1: no) · posted (1: Postgres has
--       its ledger rows) · result (arq's; '' none) · result_ms (0: forever) · text (JSON of a last message.delta; '' none)
--       · n · n × (record field, value)
--       verb  end      the job is over; the record's `state` says how
--             retry    again after delay_ms, at its own place
--             release  handed back at its place; the attempt does not count
-- Returns {OK | LOST per job, in order, as one list; then claim's answer, or false when none was asked for or the
-- worker has no lease}
local queue, worker, max_events, ttl_s = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local held = queue .. ':held:' .. worker
local now_ms = clock()

-- What all ends of this call have in common is done at its end, by one command for all of them.
local over, keys, ended, entering = {}, {}, {}, {}

local function put_back(id, verb, delay_ms, tenant, cancelled)
  if cancelled then delay_ms = 0 end -- asked for meanwhile: its next claim is handed out flagged
  local score = string.gsub(redis.call('ZSCORE', queue, id) or int(now_ms), '^-', '')
  if tenant then
    redis.call('HSET', 'sb:job:' .. id, 'state', 'retrying')
    if verb == 'release' then redis.call('HINCRBY', 'sb:job:' .. id, 'attempts', -1) end
    if delay_ms == 0 then bump(queue .. ':heads', tenant, 1) end
  elseif verb == 'release' then
    redis.call('DECR', 'arq:retry:' .. id)
  end
  if delay_ms > 0 then
    redis.call('ZADD', queue, now_ms + delay_ms, id)
    if tenant then
      redis.call('ZADD', queue .. ':delayed', now_ms + delay_ms, id)
      redis.call('HSET', 'sb:job:' .. id, 'score', score) -- where it comes back to
    end
  else
    redis.call('ZADD', queue, score, id)
  end
  wake(queue) -- wakes a sleeper also to learn of the new due time
end

-- What messages that were merged into a job show of its end.
local function shown_of(record)
  local shown = {}
  local function show(name, value) shown[#shown + 1], shown[#shown + 2] = name, value end
  for _, name in ipairs({ 'reply', 'incomplete', 'degraded', 'error', 'finished_us', 'user' }) do
    local value = redis.call('HGET', record, name)
    if value then show(name, value) end
  end
  if redis.call('HGET', record, 'state') == 'rejected' then -- each by itself then (workers/turn/taken_in.py)
    show('state', 'rejected')
    show('merged_into', '')
  end
  return shown
end

-- Its conversation's next one becomes eligible: with those of the others when it need not wait.
local function let_next_one_go(id, tenant, conversation)
  local head, its_queue, due_ms = leave(id, tenant, conversation)
  if not head then return end
  if its_queue ~= queue or due_ms then return make_eligible(its_queue, tenant, head, due_ms, now_ms) end
  entering[tenant] = entering[tenant] or {}
  table.insert(entering[tenant], head)
end

-- A turn is over: `ended` is the number of its last event, which is not stored (see number_end). One whose record tells
-- all its events has no stream: the first is its start, the second its end.
local function end_turn(id, v, fields_from, fields_to)
  local record, seq = 'sb:job:' .. id, int(tonumber(v[3] or 0) + 1)
  redis.call('HSET', record, 'seq', seq, 'ended', seq, unpack(ARGV, fields_from, fields_to))
  redis.call('EXPIRE', record, ttl_s)
  if seq ~= '2' then redis.call('EXPIRE', 'sb:events:' .. id, ttl_s) end
  redis.call('PUBLISH', 'sb:notify:' .. id, 't')
  if v[4] then end_taken_in(id, shown_of(record), ttl_s) end
  let_next_one_go(id, v[1], v[2])
end

local function repeat_turn(id, verb, delay_ms, fields_from, fields_to)
  if fields_to >= fields_from then redis.call('HSET', 'sb:job:' .. id, unpack(ARGV, fields_from, fields_to)) end
  if verb == 'retry' then append_event(id, 'job.retrying', '{"retry_in_ms":' .. int(delay_ms) .. '}', max_events) end
  redis.call('PUBLISH', 'sb:notify:' .. id, 'e')
end

local function finish(id, at, last)
  local verb, delay_ms, keep_ms, posted, result = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3],
    ARGV[at + 4]
  local v = redis.call('HMGET', 'sb:job:' .. id, 'tenant', 'conv', 'seq', 'taken', 'cancel')
  over[#over + 1] = id
  if v[1] and ARGV[at + 6] ~= '' then v[3] = append_event(id, 'message.delta', ARGV[at + 6], max_events) end
  if verb == 'end' and keep_ms >= 0 then redis.call('PEXPIRE', 'arq:in-progress:' .. id, keep_ms)
  else keys[#keys + 1] = 'arq:in-progress:' .. id end
  if posted == '1' and v[1] then keys[#keys + 1] = 'sb:calls:' .. id end
  if verb ~= 'end' then
    put_back(id, verb, delay_ms, v[1], v[5])
    if v[1] then repeat_turn(id, verb, delay_ms, at + 8, last) end
    return
  end
  ended[#ended + 1] = id
  keys[#keys + 1] = 'arq:job:' .. id
  if v[1] then end_turn(id, v, at + 8, last) else keys[#keys + 1] = 'arq:retry:' .. id end
  if result ~= '' then
    if ARGV[at + 5] ~= '0' then redis.call('SET', 'arq:result:' .. id, result, 'PX', ARGV[at + 5])
    else redis.call('SET', 'arq:result:' .. id, result) end
  end
end

local ids, starts, i = {}, {}, 6
while ARGV[i] do
  ids[#ids + 1], starts[#starts + 1] = ARGV[i], i
  i = i + 10 + 2 * tonumber(ARGV[i + 9])
end
starts[#starts + 1] = i
local verdicts, mine = {}, {}
for n, claimed in ipairs(claims_of(queue, worker, ids)) do mine[ids[n]] = claimed end
for n, id in ipairs(ids) do
  local ours = mine[id] == ARGV[starts[n] + 1]
  verdicts[n] = ours and 'OK' or 'LOST'
  if ours then
    mine[id] = nil -- an attempt ends once
    finish(id, starts[n] + 2, starts[n + 1] - 1)
  end
end

if #over > 0 then
  redis.call('HDEL', held, unpack(over))
  if #keys > 0 then redis.call('DEL', unpack(keys)) end
  if redis.call('EXISTS', queue .. ':cancel:' .. worker) == 1 then
    redis.call('SREM', queue .. ':cancel:' .. worker, unpack(over))
  end
end
if #ended > 0 then
  redis.call('ZREM', queue, unpack(ended))
  if redis.call('EXISTS', 'arq:abort') == 1 then redis.call('ZREM', 'arq:abort', unpack(ended)) end
end
for tenant, heads in pairs(entering) do enter_all(queue, tenant, heads, now_ms) end

local n = tonumber(ARGV[4])
if n == 0 or not has_lease(queue, worker) then return { verdicts, false } end
return { verdicts, claim(queue, worker, n, ARGV[5], max_events, ttl_s) }
