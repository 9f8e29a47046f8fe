#!lua
-- Accept one chat job: idempotency, depth, ownership, then every write. Checked first, written after, so a refusal
-- leaves nothing. Atomic because two deliveries of one message, or two messages of one conversation, may race here.
-- No allow-oom flag: a full Redis refuses before the first write.
-- KEYS  1 queue · 2 job record · 3 arq job · 4 conversation list · 5 conversation owner · 6 idempotency (may be unused)
-- ARGV  1 id · 2 payload · 3 ttl_ms · 4 max_depth · 5 user ('' = whoever owns the conversation) · 6 owner_ttl_s
--       7 idempotency mode: none | key | sdk-first | sdk-retry · 8 idempotency ttl_ms · 9 fingerprint
--       10.. record fields, name and value in turn, of which the first is the tenant
-- Returns {outcome, id, position, created_us, user}; outcome: accepted | replayed | mismatch | owner | full
local queue, id, user, mode = KEYS[1], ARGV[1], ARGV[5], ARGV[7]
local now_ms, now_us = clock()

if redis.call('EXISTS', KEYS[2]) == 1 then -- this very call again, its first answer was lost
  local v = redis.call('HMGET', KEYS[2], 'created_us', 'user')
  return { 'accepted', id, redis.call('LPOS', KEYS[4], id) or 0, v[1], v[2] }
end

if mode == 'key' or mode == 'sdk-retry' then
  local seen = redis.call('GET', KEYS[6])
  if seen then
    local job, fingerprint = string.match(seen, '^(%S+) (%S+)$')
    if fingerprint == ARGV[9] then return { 'replayed', job, 0, '', '' } end
    return { 'mismatch', job, 0, '', '' }
  end
end

if redis.call('ZCARD', queue .. ':expiry') >= tonumber(ARGV[4]) then return { 'full', id, 0, '', '' } end

local owner = redis.call('GET', KEYS[5])
if owner and user ~= '' and owner ~= user then return { 'owner', id, 0, '', '' } end
if user == '' then user = owner or '' end

redis.call('HSET', KEYS[2], 'state', 'queued', 'queue', queue, 'score', int(now_ms), 'created_us', now_us, 'user', user,
  unpack(ARGV, 10))
redis.call('SET', KEYS[3], ARGV[2])
redis.call('ZADD', queue .. ':expiry', now_ms + tonumber(ARGV[3]), id)
if user ~= '' then redis.call('SET', KEYS[5], user, 'EX', ARGV[6]) end
if mode ~= 'none' then redis.call('SET', KEYS[6], id .. ' ' .. ARGV[9], 'PX', ARGV[8]) end
local position = redis.call('RPUSH', KEYS[4], id) - 1
if position == 0 then
  enter(queue, ARGV[11], id, now_ms)
end
return { 'accepted', id, position, now_us, user }
