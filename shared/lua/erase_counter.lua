#!lua flags=allow-oom
-- Set a counter of spent money to what the ledger has for it, once rows of it have lost their user: only while it is
-- what it was when the ledger was asked, and nothing is held on it. Nothing spent: the counter goes.
-- KEYS  1 counter     ARGV  1 nano-USD and 2 tokens that it had · 3 nano-USD and 4 tokens of the ledger
-- Returns 1, or 0 when it has changed meanwhile: ask again
local v = redis.call('HMGET', KEYS[1], 'usd', 'tok', 'usd_held', 'tok_held')
if not v[1] then return 1 end
if v[1] ~= ARGV[1] or v[2] ~= ARGV[2] or tonumber(v[3]) ~= 0 or tonumber(v[4]) ~= 0 then return 0 end
if ARGV[3] == '0' and ARGV[4] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('HSET', KEYS[1], 'usd', ARGV[3], 'tok', ARGV[4])
end
return 1
