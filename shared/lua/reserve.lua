#!lua flags=allow-oom
-- Hold money for model calls, of one job or of many: for each on every scope it is charged to, or on none; and keep its
-- ledger row in Redis until Postgres has it. Decided and held in one step, so that no number of calls at the same time
-- spends more than there is. Calls are decided one after the other, each as if it had come alone; what they have in
-- common (the claims, the counters of a tenant and of all, the state of a model) is read once and written once, at the
-- end: a script that fails half-way has held nothing.
-- The row is what a crash books; its hold says what a crash leaves reserved, until the taker of the job settles it.
-- Fenced by the claim. The same call id again (its answer was lost) is answered as before and takes nothing.
-- KEYS  1 queue · then per call: calls of its job
-- ARGV  1 worker · 2 how many scopes · then per scope: key · most nano-USD ('': any) · most tokens · nano-USD and tokens
--       from which cheaper models are taken ('': never) · expiry (Unix s; `+s`: so long after this call) · seed (`nano
--       tokens` a missing counter begins with; '': ask) · then per call: id · claim · call id · its scopes, the narrowest
--       first (places in the list above, from 1 on) · how many offers · then per offer, the best first: row (JSON) ·
--       nano-USD to hold · tokens to hold · cheap (1 | 0) · provider · model · terms (see _provider.lua)
-- Returns for each call, in order: {HELD, offer, past} (past 1: some scope wants cheaper models) | {BLOCKED, scope} the
-- narrowest that the last offer does not fit | {BUSY | DOWN, offer, retry_after_ms, reason} of its provider |
-- {UNSEEDED, scope} its counter is not known | {CLOSED} no counter is | {LOST}; offers and scopes are counted from 0,
-- among those of the call
local queue, worker, epoch = KEYS[1], ARGV[1], redis.call('HGET', 'sb:money', 'epoch')
local now_ms = clock()

local scopes, i = {}, 3
for n = 1, tonumber(ARGV[2]) do
  scopes[n] = { key = ARGV[i], most_usd = tonumber(ARGV[i + 1]), most_tok = tonumber(ARGV[i + 2]),
    cheap_usd = tonumber(ARGV[i + 3]), cheap_tok = tonumber(ARGV[i + 4]), expiry = ARGV[i + 5], seed = ARGV[i + 6] }
  i = i + 7
end

-- Counters by key as these calls leave them, and those scopes whose counters they change.
local counters, changed = {}, {}

-- Of a scope; one that is missing begins with the seed, and is known to others once something is held on it.
local function counter_of(scope)
  local counter = counters[scope.key]
  if counter then return counter end
  local v = redis.call('HMGET', scope.key, 'usd', 'usd_held', 'tok', 'tok_held')
  if v[1] then
    counter = { usd = tonumber(v[1]), usd_held = tonumber(v[2]), tok = tonumber(v[3]), tok_held = tonumber(v[4]) }
    counters[scope.key] = counter
    return counter
  end
  local usd, tok = string.match(scope.seed, '^(%d+) (%d+)$')
  return usd and { new = true, usd = tonumber(usd), usd_held = 0, tok = tonumber(tok), tok_held = 0 }
end

local function scope_too_small(offer, mine)
  for n, each in ipairs(mine) do
    local scope, counter = each.scope, each.counter
    if scope.most_usd and counter.usd + counter.usd_held + offer.usd > scope.most_usd then return n end
    if scope.most_tok and counter.tok + counter.tok_held + offer.tok > scope.most_tok then return n end
  end
end

local rows, held_here = {}, {} -- what is to be written to calls of jobs; offers held, by calls of the job and call id

local function hold(calls, call_id, index, offer, mine, past)
  local names = {}
  for n, each in ipairs(mine) do
    local scope, counter = each.scope, each.counter
    names[n], counters[scope.key] = scope.key, counter
    counter.usd_held, counter.tok_held = counter.usd_held + offer.usd, counter.tok_held + offer.tok
    if not counter.changed then
      counter.changed = true
      changed[#changed + 1] = scope
    end
  end
  local slot = provider_take(offer.provider, offer.model, offer.tok, offer.terms, now_ms, call_id, queue, worker)
  rows[#rows + 1] = { calls, call_id, offer.row, call_id .. ':hold', cjson.encode({ of = index, usd = int(offer.usd),
    tok = int(offer.tok), epoch = epoch, scopes = names, slot = slot }) }
  held_here[calls .. call_id] = index
  return { 'HELD', index, past and 1 or 0 }
end

local function read_offers(at, count)
  local offers, some_cheap = {}, false
  for n = 1, count do
    offers[n] = { row = ARGV[at], usd = tonumber(ARGV[at + 1]), tok = tonumber(ARGV[at + 2]), cheap = ARGV[at + 3] == '1',
      provider = ARGV[at + 4], model = ARGV[at + 5], terms = ARGV[at + 6] }
    some_cheap, at = some_cheap or offers[n].cheap, at + 7
  end
  return offers, some_cheap
end

-- `at`: of the list of its scopes.
local function decide(calls, call_id, at)
  local mine, past = {}, false
  for place in string.gmatch(ARGV[at], '%d+') do
    local scope = scopes[tonumber(place)]
    local counter = counter_of(scope)
    if not counter then return { 'UNSEEDED', #mine } end
    past = past or (scope.cheap_usd and counter.usd >= scope.cheap_usd)
      or (scope.cheap_tok and counter.tok >= scope.cheap_tok) or false
    mine[#mine + 1] = { scope = scope, counter = counter }
  end
  local offers, some_cheap = read_offers(at + 2, tonumber(ARGV[at + 1]))
  local too_small, soonest
  for n, offer in ipairs(offers) do
    if offer.cheap or not (past and some_cheap) then
      too_small = scope_too_small(offer, mine)
      if not too_small then
        local kind, after_ms, reason = provider_refusal(offer.provider, offer.model, offer.tok, offer.terms, now_ms, call_id)
        if not kind then return hold(calls, call_id, n - 1, offer, mine, past) end
        if kind == 'busy' then return { 'BUSY', n - 1, after_ms, reason } end
        if not soonest or after_ms < soonest[3] then soonest = { 'DOWN', n - 1, after_ms, reason } end
      end
    end
  end
  return soonest or { 'BLOCKED', (too_small or 1) - 1 }
end

local function reserve(calls, claimed, at)
  local call_id = ARGV[at + 2]
  if claimed ~= ARGV[at + 1] then return { 'LOST' } end
  if held_here[calls .. call_id] then return { 'HELD', held_here[calls .. call_id], 0 } end
  local known = redis.call('HMGET', calls, call_id, call_id .. ':hold')
  if known[2] then return { 'HELD', cjson.decode(known[2]).of, 0 } end
  if known[1] then return { 'LOST' } end -- given up already: this command was late
  if not epoch then return { 'CLOSED' } end
  return decide(calls, call_id, at + 3)
end

local ids, places = {}, {}
for n = 1, #KEYS - 1 do
  ids[n], places[n] = ARGV[i], i
  i = i + 5 + 7 * tonumber(ARGV[i + 4])
end
local answers, claims = {}, claims_of(queue, worker, ids)
for n = 1, #ids do answers[n] = reserve(KEYS[1 + n], claims[n], places[n]) end

-- Once a day is enough for what lasts for many.
local function renew(key, counter, expiry)
  local idle_s = tonumber(expiry)
  if counter.new or redis.call('TTL', key) < idle_s - 86400 then redis.call('EXPIRE', key, idle_s) end
end

for _, scope in ipairs(changed) do
  local key, counter = scope.key, counters[scope.key]
  local usd_held, tok_held = int(counter.usd_held), int(counter.tok_held)
  if counter.new then
    redis.call('HSET', key, 'usd', int(counter.usd), 'usd_held', usd_held, 'tok', int(counter.tok), 'tok_held', tok_held)
  else
    redis.call('HSET', key, 'usd_held', usd_held, 'tok_held', tok_held)
  end
  if string.sub(scope.expiry, 1, 1) == '+' then renew(key, counter, scope.expiry)
  elseif counter.new then redis.call('EXPIREAT', key, scope.expiry) end
end
for _, row in ipairs(rows) do redis.call('HSET', unpack(row)) end
return answers
