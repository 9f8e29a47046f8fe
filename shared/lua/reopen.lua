#!lua flags=allow-oom
-- Make the counters of spent money anew from the ledger, after Redis lost its memory. Until `sb:money` stands nothing is
-- reserved. One process at a time does it, under a lock that runs out; each step is fenced by it, so that one that was
-- held up cannot write over what another has made.
-- ARGV  1 token of the process · 2 verb · then
--       begin  lock_ms · lease_ms: workers that live have noticed by then, and said what Postgres does not have yet
--              Returns open | busy (another one is at it) | ready | wait, and with that how many ms
--       clear  counters (keys)
--       fill   per counter: key · nano-USD · tokens · expiry (Unix s)
--       open   epoch
--       Returns OK or LOST
local token, verb = ARGV[1], ARGV[2]
local lock, closed, unposted = 'sb:money:lock', 'sb:money:closed', 'sb:money:unposted'

if verb == 'begin' then
  if redis.call('EXISTS', 'sb:money') == 1 then return { 'open', 0 } end
  local now_ms = clock()
  redis.call('SET', closed, int(now_ms), 'NX')
  local holder = redis.call('GET', lock)
  if holder and holder ~= token then return { 'busy', 0 } end
  redis.call('SET', lock, token, 'PX', ARGV[3])
  redis.call('ZREMRANGEBYSCORE', unposted, '-inf', now_ms)
  local wait_ms = redis.call('GET', closed) + ARGV[4] - now_ms
  if wait_ms > 0 then return { 'wait', wait_ms } end
  if redis.call('EXISTS', unposted) == 1 then return { 'wait', 50 } end
  return { 'ready', 0 }
end

if redis.call('GET', lock) ~= token then return 'LOST' end
if verb == 'clear' then
  redis.call('DEL', unpack(ARGV, 3))
elseif verb == 'fill' then
  for i = 3, #ARGV, 4 do
    redis.call('HSET', ARGV[i], 'usd', ARGV[i + 1], 'usd_held', 0, 'tok', ARGV[i + 2], 'tok_held', 0)
    redis.call('EXPIREAT', ARGV[i], ARGV[i + 3])
  end
else
  redis.call('HSET', 'sb:money', 'epoch', ARGV[3])
  redis.call('DEL', lock, closed)
end
return 'OK'
