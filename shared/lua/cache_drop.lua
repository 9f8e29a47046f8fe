#!lua flags=allow-oom
-- Drop kept answers, their places and their sizes together, so that the count of bytes stays right.
-- KEYS  1 order · 2 sizes · then answers
-- Returns how many were there
local dropped = 0
for i = 3, #KEYS do
  local size = redis.call('HGET', KEYS[2], KEYS[i])
  if size then redis.call('HINCRBY', KEYS[2], '', -size) end
  redis.call('HDEL', KEYS[2], KEYS[i])
  redis.call('ZREM', KEYS[1], KEYS[i])
  dropped = dropped + redis.call('DEL', KEYS[i])
end
return dropped
