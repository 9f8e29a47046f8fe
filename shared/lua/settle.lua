#!lua flags=allow-oom
-- Model calls are over: what was held for each goes back, and what it cost is counted on the same scopes, once; its row
-- becomes the exact one. Fenced by the claim: who holds the job decides what a call cost, so that these counters and the
-- ledger never disagree; what an attempt knows that was given up on comes to the next one by way of the ledger.
-- KEYS  1 queue · 2 calls of the job
-- ARGV  1 worker · 2 id · 3 claim · then per call: call id · row (JSON; '': Postgres has it, forget it) · nano-USD ·
--       tokens · told (of the provider, see _provider.lua)
-- Returns OK or LOST. A call that is settled already, or was never held, changes no counter.
if redis.call('HGET', KEYS[1] .. ':held:' .. ARGV[1], ARGV[2]) ~= ARGV[3] then return 'LOST' end
local calls = KEYS[2]

-- A hold from before the counters were made anew is not among theirs.
local function count(hold, usd, tok)
  local ours = hold.epoch == redis.call('HGET', 'sb:money', 'epoch')
  for _, key in ipairs(hold.scopes) do
    local v = redis.call('HMGET', key, 'usd', 'usd_held', 'tok', 'tok_held')
    if v[1] then
      redis.call('HSET', key, 'usd', int(v[1] + usd), 'usd_held', int(ours and v[2] - hold.usd or v[2]),
        'tok', int(v[3] + tok), 'tok_held', int(ours and v[4] - hold.tok or v[4]))
    end
  end
end

for i = 4, #ARGV, 5 do
  local call_id, row, usd, tok = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local hold = redis.call('HGET', calls, call_id .. ':hold')
  if hold then
    hold = cjson.decode(hold)
    count(hold, usd, tok)
    provider_give(hold.slot, call_id, tok, ARGV[i + 4], (clock()))
    redis.call('HDEL', calls, call_id .. ':hold')
  end
  if row == '' then redis.call('HDEL', calls, call_id) else redis.call('HSET', calls, call_id, row) end
end
return 'OK'
