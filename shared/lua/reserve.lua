#!lua flags=allow-oom
-- Hold money for one model call: on every scope it is charged to, or on none; and keep its ledger row in Redis until
-- Postgres has it. Decided and held in one step, so that no number of calls at the same time spends more than there is.
-- The row is what a crash books; its hold says what a crash leaves reserved, until the taker of the job settles it.
-- Fenced by the claim. The same call id again (its answer was lost) is answered as before and takes nothing.
-- KEYS  1 queue · 2 calls of the job
-- ARGV  1 worker · 2 id · 3 claim · 4 call id · 5 how many scopes · then per scope, the narrowest first:
--       key · most nano-USD ('': any) · most tokens · nano-USD and tokens from which cheaper models are taken ('': never) ·
--       expiry (Unix s; `+s`: so long after this call) · seed (`nano tokens` a missing counter begins with; '': ask) ·
--       then per offer, the best first: row (JSON) · nano-USD to hold · tokens to hold · cheap (1 | 0) · provider ·
--       model · terms (see _provider.lua)
-- Returns {HELD, offer, past} (past 1: some scope wants cheaper models) | {BLOCKED, scope} the narrowest that the last
-- offer does not fit | {BUSY | DOWN, offer, retry_after_ms, reason} of its provider | {UNSEEDED, scope} its counter is
-- not known | {CLOSED} no counter is | {LOST}; offers and scopes are counted from 0
local calls, call_id = KEYS[2], ARGV[4]
if redis.call('HGET', KEYS[1] .. ':held:' .. ARGV[1], ARGV[2]) ~= ARGV[3] then return { 'LOST' } end
local known = redis.call('HMGET', calls, call_id, call_id .. ':hold')
if known[2] then return { 'HELD', cjson.decode(known[2]).of, 0 } end
if known[1] then return { 'LOST' } end -- given up already: this command was late
local epoch = redis.call('HGET', 'sb:money', 'epoch')
if not epoch then return { 'CLOSED' } end

local scopes, past, i = {}, false, 6
for n = 1, tonumber(ARGV[5]) do
  local v = redis.call('HMGET', ARGV[i], 'usd', 'usd_held', 'tok', 'tok_held')
  local scope = { key = ARGV[i], most_usd = tonumber(ARGV[i + 1]), most_tok = tonumber(ARGV[i + 2]), expiry = ARGV[i + 5] }
  if v[1] then
    scope.usd, scope.usd_held, scope.tok, scope.tok_held = tonumber(v[1]), tonumber(v[2]), tonumber(v[3]), tonumber(v[4])
  elseif ARGV[i + 6] == '' then
    return { 'UNSEEDED', n - 1 }
  else
    local usd, tok = string.match(ARGV[i + 6], '^(%d+) (%d+)$')
    scope.new, scope.usd, scope.usd_held, scope.tok, scope.tok_held = true, tonumber(usd), 0, tonumber(tok), 0
  end
  local cheap_usd, cheap_tok = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  past = past or (cheap_usd and scope.usd >= cheap_usd) or (cheap_tok and scope.tok >= cheap_tok) or false
  scopes[n], i = scope, i + 7
end

local offers, some_cheap = {}, false
while ARGV[i] do
  offers[#offers + 1] = { row = ARGV[i], usd = tonumber(ARGV[i + 1]), tok = tonumber(ARGV[i + 2]), cheap = ARGV[i + 3] == '1',
    provider = ARGV[i + 4], model = ARGV[i + 5], terms = ARGV[i + 6] }
  some_cheap, i = some_cheap or ARGV[i + 3] == '1', i + 7
end

local function scope_too_small(offer)
  for n, scope in ipairs(scopes) do
    if scope.most_usd and scope.usd + scope.usd_held + offer.usd > scope.most_usd then return n end
    if scope.most_tok and scope.tok + scope.tok_held + offer.tok > scope.most_tok then return n end
  end
end

-- Once a day is enough for what lasts for many.
local function renew(scope)
  local idle_s = tonumber(scope.expiry)
  if scope.new or redis.call('TTL', scope.key) < idle_s - 86400 then redis.call('EXPIRE', scope.key, idle_s) end
end

local function hold(index, offer, now_ms)
  local names = {}
  for n, scope in ipairs(scopes) do
    names[n] = scope.key
    local usd_held, tok_held = int(scope.usd_held + offer.usd), int(scope.tok_held + offer.tok)
    if scope.new then
      redis.call('HSET', scope.key, 'usd', int(scope.usd), 'usd_held', usd_held, 'tok', int(scope.tok), 'tok_held', tok_held)
    else
      redis.call('HSET', scope.key, 'usd_held', usd_held, 'tok_held', tok_held)
    end
    if string.sub(scope.expiry, 1, 1) == '+' then renew(scope)
    elseif scope.new then redis.call('EXPIREAT', scope.key, scope.expiry) end
  end
  local slot = provider_take(offer.provider, offer.model, offer.tok, offer.terms, now_ms, call_id, KEYS[1], ARGV[1])
  redis.call('HSET', calls, call_id, offer.row, call_id .. ':hold', cjson.encode({ of = index, usd = int(offer.usd),
    tok = int(offer.tok), epoch = epoch, scopes = names, slot = slot }))
  return { 'HELD', index, past and 1 or 0 }
end

local now_ms = clock()
local too_small, soonest
for n, offer in ipairs(offers) do
  if offer.cheap or not (past and some_cheap) then
    too_small = scope_too_small(offer)
    if not too_small then
      local kind, after_ms, reason = provider_refusal(offer.provider, offer.model, offer.tok, offer.terms, now_ms, call_id)
      if not kind then return hold(n - 1, offer, now_ms) end
      if kind == 'busy' then return { 'BUSY', n - 1, after_ms, reason } end
      if not soonest or after_ms < soonest[3] then soonest = { 'DOWN', n - 1, after_ms, reason } end
    end
  end
end
return soonest or { 'BLOCKED', (too_small or 1) - 1 }
