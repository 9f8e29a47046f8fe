#!lua
-- Keep an answer and end its flight. All kept answers together never take more than `most` bytes, by our own count: the
-- oldest make room. Count, room and answer change in one call, so that no two workers can fill the same room.
-- Nor is anything kept that was asked for before somebody of the tenant was erased: it may say what that one said.
-- KEYS  1 answer · 2 flight · 3 order (kept at, Unix ms) · 4 sizes (bytes by answer; '' all together) · 5 erased at
-- ARGV  1 token · 2 answer (JSON) · 3 keep_ms · 4 most (bytes) · 5 ms since it was asked for
-- Returns {bytes kept now, answers that made room}
local OVERHEAD = 300 -- bytes that an answer takes besides its texts; a test holds this against MEMORY USAGE
local ROUNDED = 1.25 -- by how much the server's allocator may round a text up
local answer, order, sizes = KEYS[1], KEYS[3], KEYS[4]
local now_ms, most = clock(), tonumber(ARGV[4])
local used, made_room = tonumber(redis.call('HGET', sizes, '') or 0), 0

local function forget(key) -- whether it was still there
  used = used - tonumber(redis.call('HGET', sizes, key) or 0)
  redis.call('HDEL', sizes, key)
  redis.call('ZREM', order, key)
  return redis.call('DEL', key)
end

local flight = redis.call('GET', KEYS[2])
if flight == ARGV[1] or flight == '-' then redis.call('DEL', KEYS[2]) end
forget(answer)
for _, key in ipairs(redis.call('ZRANGE', order, 0, 9)) do
  if redis.call('EXISTS', key) == 0 then forget(key) end
end
local value = int(now_ms) .. ' ' .. ARGV[2]
local size = math.ceil((#value + 3 * #answer) * ROUNDED) + OVERHEAD
local oldest = redis.call('ZRANGE', order, 0, 0)[1]
while oldest and used + size > most do
  made_room = made_room + forget(oldest)
  oldest = redis.call('ZRANGE', order, 0, 0)[1]
end
if not oldest then used = 0 end
local erased_ms = tonumber(redis.call('GET', KEYS[5]) or 0)
if size <= most and now_ms - tonumber(ARGV[5]) > erased_ms then
  used = used + size
  redis.call('SET', answer, value, 'PX', ARGV[3])
  redis.call('ZADD', order, now_ms, answer)
  redis.call('HSET', sizes, answer, size)
end
redis.call('HSET', sizes, '', int(used))
for _, index in ipairs({ order, sizes }) do -- as long as the last answer; nothing is left of an unused cache
  if redis.call('PTTL', index) < tonumber(ARGV[3]) then redis.call('PEXPIRE', index, ARGV[3]) end
end
return { used, made_room }
