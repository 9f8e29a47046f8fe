#!lua flags=allow-oom
-- Model calls are over, of one job or of many: what was held for each goes back, and what it cost is counted on the same
-- scopes, once; its row becomes the exact one. Fenced by the claim: who holds the job decides what a call cost, so that
-- these counters and the ledger never disagree; what an attempt knows that was given up on comes to the next one by way
-- of the ledger. Counters are read once and written once for all calls, at the end: a script that fails half-way has
-- counted nothing.
-- KEYS  1 queue · then per job: its calls
-- ARGV  1 worker · then per job: id · claim · how many calls · then per call: call id · row (JSON; '': Postgres has it,
--       forget it) · nano-USD · tokens · told (of the provider, see _provider.lua)
-- Returns OK or LOST for each job. A call that is settled already, or was never held, changes no counter.
local queue, worker = KEYS[1], ARGV[1]
local epoch, now_ms = redis.call('HGET', 'sb:money', 'epoch'), clock()

-- Counters by key as these calls leave them, false where there is none; and the keys of those that there are.
local counters, changed = {}, {}

local function counter_of(key)
  if counters[key] == nil then
    local v = redis.call('HMGET', key, 'usd', 'usd_held', 'tok', 'tok_held')
    counters[key] = v[1] and
      { usd = tonumber(v[1]), usd_held = tonumber(v[2]), tok = tonumber(v[3]), tok_held = tonumber(v[4]) }
    if v[1] then changed[#changed + 1] = key end
  end
  return counters[key]
end

-- A hold from before the counters were made anew is not among theirs.
local function count(hold, usd, tok)
  local ours = hold.epoch == epoch
  for _, key in ipairs(hold.scopes) do
    local counter = counter_of(key)
    if counter then
      counter.usd, counter.tok = counter.usd + usd, counter.tok + tok
      if ours then
        counter.usd_held, counter.tok_held = counter.usd_held - hold.usd, counter.tok_held - hold.tok
      end
    end
  end
end

local given_back, rows = {}, {} -- holds, by calls of the job and call id; what is to be written

local function settle(calls, at)
  local call_id, row, usd, tok = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local hold = not given_back[calls .. call_id] and redis.call('HGET', calls, call_id .. ':hold')
  if hold then
    given_back[calls .. call_id] = true
    hold = cjson.decode(hold)
    count(hold, usd, tok)
    provider_give(hold.slot, call_id, tok, ARGV[at + 4], now_ms)
  end
  rows[#rows + 1] = { calls, call_id, row, hold }
end

local ids, places, i = {}, {}, 2
for n = 1, #KEYS - 1 do
  ids[n], places[n] = ARGV[i], i
  i = i + 3 + 5 * tonumber(ARGV[i + 2])
end
local verdicts, claims = {}, claims_of(queue, worker, ids)
for n, at in ipairs(places) do
  local ours = claims[n] == ARGV[at + 1]
  verdicts[n] = ours and 'OK' or 'LOST'
  for call = 1, ours and tonumber(ARGV[at + 2]) or 0 do settle(KEYS[1 + n], at + 5 * call - 2) end
end

for _, key in ipairs(changed) do
  local counter = counters[key]
  redis.call('HSET', key, 'usd', int(counter.usd), 'usd_held', int(counter.usd_held), 'tok', int(counter.tok), 'tok_held',
    int(counter.tok_held))
end
for _, each in ipairs(rows) do
  local calls, call_id, row, hold = each[1], each[2], each[3], each[4]
  if hold then redis.call('HDEL', calls, call_id .. ':hold') end
  if row == '' then redis.call('HDEL', calls, call_id) else redis.call('HSET', calls, call_id, row) end
end
return verdicts
