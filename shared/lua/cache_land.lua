#!lua flags=allow-oom
-- End a flight that brought no answer to keep. Those who wait look again: one of them asks next, or with `alone_ms`
-- all do, each for itself, because what this one got is not to be shared and the next one would get it too.
-- KEYS  1 flight     ARGV  1 token · 2 alone_ms (0: one of them asks next)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], '-', 'PX', ARGV[2])
end
