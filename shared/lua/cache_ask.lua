#!lua
-- Look a kept answer up. Where there is none, become the one who asks the model, unless somebody does already.
-- One call, so that of any number of equal questions exactly one finds neither an answer nor an asker.
-- KEYS  1 answer · 2 flight     ARGV  1 token of this asker · 2 ttl_ms (an answer kept earlier is none) · 3 lease_ms
-- Returns {HIT, answer (JSON)} or one of {LEAD} (ask, then cache_keep or cache_land; cache_hold meanwhile),
-- {WAIT} (somebody asks: look again) and {ALONE} (ask; nobody waits for it)
local kept = redis.call('GET', KEYS[1])
if kept then
  local at, answer = string.match(kept, '^(%d+) (.*)$')
  if clock() - tonumber(at) < tonumber(ARGV[2]) then return { 'HIT', answer } end
end
local flight = redis.call('GET', KEYS[2])
if flight == '-' then return { 'ALONE' } end
if flight and flight ~= ARGV[1] then return { 'WAIT' } end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return { 'LEAD' }
