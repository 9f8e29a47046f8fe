-- What a provider can take, for reserve and settle: calls under way and what they may use a minute, across all
-- workers; what the provider's own answers say it has left; and a circuit breaker per model.
--
-- A call under way is an entry under its own id with its worker's name, so a call that is told twice counts once, and
-- those of a worker whose lease is over count no more (a killed worker frees its slots).

local SLOT_POLL_MS = 250     -- after which a full provider may be asked again
local SWEEP_MS = 100         -- at most one look for dead workers in this time
local PROBE_MS = 60000       -- a probe that takes longer is not waited for
local LONGEST_COOL = 12      -- most often a cool-down is doubled up to, as a multiple
local MINUTE_S = 61          -- seconds are kept whole: no window of 60 s ever holds more than the limit
local MODEL_TTL_S = 7200
local DAY_MS = 86400000
local KINDS = { 'requests', 'tokens', 'input', 'output' } -- what providers count
local MODEL = { 'open_until', 'opens', 'account', 'probe', 'probe_by', 'probe_at', 'fails', 'oks', 'since', 'pause_until',
  'heard', 'requests', 'requests_at', 'tokens', 'tokens_at', 'input', 'input_at', 'output', 'output_at' }

-- `terms` of a candidate: most calls at once · requests a minute · tokens a minute · longest wait (ms) that is merely
-- being busy · failures that open the breaker (0: never) · within (ms) · cool-down (ms) · input tokens · output tokens;
-- '-' is no limit. Most candidates of a batch come with the same words.
local terms_known = {}
local function read_terms(terms)
  local known = terms_known[terms]
  if known then return known end
  local v = {}
  for word in string.gmatch(terms, '%S+') do v[#v + 1] = word end
  terms_known[terms] = { slots = tonumber(v[1]), requests = tonumber(v[2]), tokens = tonumber(v[3]),
    patience_ms = tonumber(v[4]), input = tonumber(v[8]), output = tonumber(v[9]), breaker = table.concat(v, ' ', 5, 7) }
  return terms_known[terms]
end

local function model_key(provider, model) return 'sb:model:' .. provider .. ':' .. model end
local function provider_key(provider, part) return 'sb:provider:' .. provider .. ':' .. part end

-- What a model's hash holds, by field, read once for all calls of a batch until `note` changes it.
local models = {}
local function model_state(key)
  if not models[key] then
    local state, v = {}, redis.call('HMGET', key, unpack(MODEL))
    for i, name in ipairs(MODEL) do state[name] = v[i] end
    models[key] = state
  end
  return models[key]
end

local function note(command, key, ...)
  models[key] = nil
  redis.call(command, key, ...)
end

local function remember(key, news)
  note('HSET', key, unpack(news))
  redis.call('EXPIRE', key, MODEL_TTL_S)
end

local function noteworthy(provider, model) redis.call('SADD', 'sb:models', provider .. ':' .. model) end

local function lives(owner, now_ms) -- owner: `<queue> <worker>`
  local queue, worker = string.match(owner, '^(%S+) (%S+)$')
  local deadline = queue and redis.call('ZSCORE', queue .. ':leases', worker)
  return deadline and tonumber(deadline) > now_ms
end

local function sweep(provider, calls, now_ms)
  if not redis.call('SET', provider_key(provider, 'swept'), 1, 'PX', SWEEP_MS, 'NX') then return end
  local alive, gone = {}, {}
  local all = redis.call('HGETALL', calls)
  for i = 1, #all, 2 do
    local owner = all[i + 1]
    if alive[owner] == nil then alive[owner] = lives(owner, now_ms) and true or false end
    if not alive[owner] then gone[#gone + 1] = all[i] end
  end
  for i = 1, #gone, 1000 do redis.call('HDEL', calls, unpack(gone, i, math.min(i + 999, #gone))) end
end

-- A minute that slides by seconds: a hash of second → amount, their `sum`, and the `first` second that is kept.
local function slide(key, now_s)
  local v = redis.call('HMGET', key, 'first', 'sum')
  local first, sum = tonumber(v[1]), tonumber(v[2] or 0)
  if not first then return now_s, 0 end
  if first > now_s + MINUTE_S or now_s - first > 2 * MINUTE_S then -- a clock that jumped, or nothing for long
    redis.call('DEL', key)
    return now_s, 0
  end
  while first <= now_s - MINUTE_S do
    sum = sum - tonumber(redis.call('HGET', key, int(first)) or 0)
    redis.call('HDEL', key, int(first))
    first = first + 1
  end
  if first ~= tonumber(v[1]) then redis.call('HSET', key, 'first', int(first), 'sum', int(sum)) end
  return first, sum
end

-- ms until `amount` more fits within `limit` a minute; 0: now, nil: never.
local function minute_wait(key, limit, amount, now_ms)
  if amount > limit then return nil end
  local now_s = math.floor(now_ms / 1000)
  local first, sum = slide(key, now_s)
  while sum + amount > limit do
    sum = sum - tonumber(redis.call('HGET', key, int(first)) or 0)
    first = first + 1
    if first > now_s + 2 * MINUTE_S then return MINUTE_S * 1000 end -- only after a clock went back
    if sum + amount <= limit then return math.max(1, (first - 1 + MINUTE_S) * 1000 - now_ms) end
  end
  return 0
end

local function minute_add(key, amount, now_ms)
  local now_s = math.floor(now_ms / 1000)
  local first = slide(key, now_s)
  local second = int(math.max(first, now_s))
  redis.call('HSETNX', key, 'first', int(first))
  redis.call('HINCRBY', key, second, int(amount))
  redis.call('HINCRBY', key, 'sum', int(amount))
  redis.call('EXPIRE', key, 2 * MINUTE_S)
  return second
end

local function minute_correct(key, second, by)
  if by == 0 or redis.call('HEXISTS', key, second) == 0 then return end
  redis.call('HINCRBY', key, second, int(by))
  redis.call('HINCRBY', key, 'sum', int(by))
end

-- What was heard of the model itself: an open breaker, a pause it asked for, and what it says is left. Returns why it
-- must not be called, and for how long (ms); nil: it may be, or only as the probe that finds out whether it is back.
local function told_refusal(key, t, tokens, now_ms)
  local m = model_state(key)
  if m.open_until then
    local open_ms = m.open_until - now_ms
    if open_ms > 0 then return m.account and 'account' or 'open', open_ms end
    if m.probe_by and now_ms - m.probe_at < PROBE_MS and lives(m.probe_by, now_ms) then return 'probing', SLOT_POLL_MS end
  end
  local why, wait_ms = nil, 0
  if m.pause_until and m.pause_until - now_ms > 0 then why, wait_ms = 'paused', m.pause_until - now_ms end
  local needs = { 1, tokens, t.input, t.output }
  for i, kind in ipairs(KINDS) do
    local left, until_ms = tonumber(m[kind]), tonumber(m[kind .. '_at'])
    if left and needs[i] and left < needs[i] and until_ms - now_ms > wait_ms then
      why, wait_ms = kind, until_ms - now_ms
    end
  end
  return why, wait_ms
end

-- Whether a candidate may be called now: nil, or how it is refused. `busy`: it will be free again soon, wait for it.
-- `down`: look at the next one. With ms until it is worth asking again, and the reason.
local function provider_refusal(provider, model, tokens, terms, now_ms, call_id)
  if terms == '' then return nil end
  local t = read_terms(terms)
  local why, wait_ms = told_refusal(model_key(provider, model), t, tokens, now_ms)
  if why == 'open' or why == 'account' or why == 'probing' then return 'down', wait_ms, why end
  if why then return wait_ms > t.patience_ms and 'down' or 'busy', wait_ms, why end
  for part, limit in pairs({ rpm = t.requests, tpm = t.tokens }) do
    local amount = part == 'rpm' and 1 or tokens
    local minute_ms = minute_wait(provider_key(provider, part), limit, amount, now_ms)
    if not minute_ms then return 'down', DAY_MS, 'too_large' end
    if minute_ms > 0 then return 'busy', minute_ms, part end
  end
  local calls = provider_key(provider, 'calls')
  if t.slots and redis.call('HLEN', calls) >= t.slots and redis.call('HEXISTS', calls, call_id) == 0 then
    sweep(provider, calls, now_ms)
    if redis.call('HLEN', calls) >= t.slots then return 'busy', SLOT_POLL_MS, 'slots' end
  end
  return nil
end

-- The call is going to be made. Returns what provider_give must be told when it is over.
local function provider_take(provider, model, tokens, terms, now_ms, call_id, queue, worker)
  if terms == '' then return '' end
  local t, key, owner = read_terms(terms), model_key(provider, model), queue .. ' ' .. worker
  local second, probe = '-', 0
  if t.slots then
    redis.call('HSET', provider_key(provider, 'calls'), call_id, owner)
    redis.call('EXPIRE', provider_key(provider, 'calls'), MODEL_TTL_S)
  end
  if t.requests then minute_add(provider_key(provider, 'rpm'), 1, now_ms) end
  if t.tokens then second = minute_add(provider_key(provider, 'tpm'), tokens, now_ms) end
  local m = model_state(key)
  if m.open_until then
    note('HSET', key, 'probe', call_id, 'probe_by', owner, 'probe_at', int(now_ms))
    probe = 1
  end
  local needs = { 1, tokens, t.input or 0, t.output or 0 }
  for i, kind in ipairs(KINDS) do
    if m[kind] then note('HINCRBY', key, kind, int(-needs[i])) end
  end
  return table.concat({ provider, model, t.slots and 1 or 0, second, int(tokens), probe, t.breaker }, ' ')
end

-- Opens for the cool-down, doubled with every probe that failed, give or take a fifth (from the call's id, as a
-- script has no dice), so that many models do not come back at once.
local function open(provider, model, call_id, opens, cool_ms, now_ms, account)
  local key = model_key(provider, model)
  local share = (tonumber(string.sub(call_id, -4), 16) or 32768) / 65535
  local wait_ms = cool_ms * math.min(2 ^ (opens - 1), LONGEST_COOL) * (0.8 + 0.4 * share)
  note('HDEL', key, 'probe', 'probe_by', 'probe_at', 'fails', 'oks', 'since', 'account')
  noteworthy(provider, model)
  remember(key, { 'open_until', int(now_ms + wait_ms), 'opens', opens })
  if account then note('HSET', key, 'account', 1) end
end

-- Failures are counted from the first one on, for as long as the window is; answers only while there are failures. A
-- refusal of our account (`account_ms` says how long to wait then) is known after one, also where failures are not counted.
local function breaker(provider, model, call_id, verdict, account_ms, probe, most, window_ms, cool_ms, now_ms)
  if most == 0 and verdict ~= 'account' and not probe then return end
  local key = model_key(provider, model)
  local m = model_state(key)
  if m.open_until then -- what was under way when it opened says nothing new
    if not probe or m.probe ~= call_id then return end
    if verdict == 'ok' then note('HDEL', key, 'open_until', 'probe', 'probe_by', 'probe_at', 'opens', 'account')
    elseif verdict == 'account' then open(provider, model, call_id, 1, account_ms, now_ms, true)
    elseif verdict == 'fail' then open(provider, model, call_id, tonumber(m.opens or 1) + 1, cool_ms, now_ms)
    else note('HDEL', key, 'probe', 'probe_by', 'probe_at') end
    return
  end
  if verdict == 'account' then return open(provider, model, call_id, 1, account_ms, now_ms, true) end
  if verdict == 'ok' and m.fails then note('HINCRBY', key, 'oks', 1) end
  if verdict ~= 'fail' then return end
  local fails, oks, since = tonumber(m.fails or 0), tonumber(m.oks or 0), tonumber(m.since or 0)
  if math.abs(now_ms - since) > window_ms then fails, oks, since = 0, 0, now_ms end
  fails = fails + 1
  if fails >= most and fails > oks then return open(provider, model, call_id, 1, cool_ms, now_ms) end
  remember(key, { 'fails', fails, 'oks', oks, 'since', int(since) })
end

-- What the provider said of itself; an answer that began earlier than the last one heard of says nothing of what is
-- left. `v`: the words of `told`.
local function hear(provider, model, v, now_ms)
  local key = model_key(provider, model)
  local pause_ms, heard_ms, news = tonumber(v[2]), now_ms - (tonumber(v[3]) or 0), {}
  local before = model_state(key)
  local function add(name, value) news[#news + 1], news[#news + 2] = name, value end
  if pause_ms then
    noteworthy(provider, model)
    add('pause_until', int(math.max(now_ms + pause_ms, tonumber(before.pause_until or 0))))
  end
  if heard_ms >= tonumber(before.heard or 0) then
    for i, kind in ipairs(KINDS) do
      local left, in_ms = tonumber(v[2 + 2 * i]), tonumber(v[3 + 2 * i])
      if left and in_ms then
        add(kind, int(left))
        add(kind .. '_at', int(now_ms + in_ms))
        add('heard', int(heard_ms))
      end
    end
  end
  if #news > 0 then remember(key, news) end
end

-- The call is over. `slot`: what provider_take returned. `told`: '' when nothing is known of how it went, or: `account`
-- (our key or money was refused) and for how long (ms) nobody is to ask; or: ok | fail | - · pause_ms · ms since the answer began · then what is left and for how long that holds (ms) of each kind; '-'
-- where nothing was said.
local function provider_give(slot, call_id, actual_tokens, told, now_ms)
  if slot == '' then return end
  local s, v = {}, {}
  for word in string.gmatch(slot, '%S+') do s[#s + 1] = word end
  for word in string.gmatch(told, '%S+') do v[#v + 1] = word end
  local provider, model = s[1], s[2]
  if s[3] == '1' then redis.call('HDEL', provider_key(provider, 'calls'), call_id) end
  if s[4] ~= '-' then minute_correct(provider_key(provider, 'tpm'), s[4], actual_tokens - s[5]) end
  local probe = s[6] == '1'
  if #v == 0 and not probe then return end
  breaker(provider, model, call_id, v[1], tonumber(v[2]), probe, tonumber(s[7]), tonumber(s[8]), tonumber(s[9]), now_ms)
  if v[1] == 'account' then return end
  if v[2] and (v[2] ~= '-' or v[3] ~= '-') then hear(provider, model, v, now_ms) end
end
