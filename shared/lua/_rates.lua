-- Exact sliding windows: at most `limit` entries in any `length_us` of the server's clock. A window is a list of the
-- moments (Unix µs) at which something was let in, oldest first: never more than its limit, 10 bytes each. Callers look
-- at every window before they enter one, so that what is refused anywhere is counted nowhere.

local function moment(key, index) return tonumber(redis.call('LINDEX', key, index)) end -- nil: there is none

-- How many entries are not after `latest`; the first is known to be one of them. Mostly few are: small steps first.
local function up_to(key, count, latest)
  local low, high = 1, 1
  while high < count and moment(key, high) <= latest do low, high = high + 1, high * 2 end
  high = math.min(high, count)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if moment(key, middle) <= latest then low = middle + 1 else high = middle end
  end
  return low
end

-- The server's clock went back: what it now calls the future was let in now. Nobody is let in for that too early, and
-- nobody is kept out for longer than one window.
local function set_back(key, count, length_us, now_us)
  local future = count - (moment(key, 0) > tonumber(now_us) and 0 or up_to(key, count, tonumber(now_us)))
  redis.call('RPOP', key, future)
  while future > 0 do
    local batch = {}
    for i = 1, math.min(future, 1000) do batch[i] = now_us end
    redis.call('RPUSH', key, unpack(batch))
    future = future - #batch
  end
  redis.call('PEXPIRE', key, int(length_us / 500))
end

-- Forgets what has left the window. Returns entries it has room for (at most one's limit, at least 0), and µs until
-- the next one leaves, or while it is full, until there is room for one; third, when its newest entry came (nil: none).
-- now_us: as text.
local function look(key, limit, length_us, now_us)
  local now, first = tonumber(now_us), redis.call('LRANGE', key, 0, 1)
  local oldest = tonumber(first[1])
  if not oldest then return math.max(limit, 0), length_us, nil end
  local count, newest = redis.call('LLEN', key), moment(key, -1)
  if newest > now then
    set_back(key, count, length_us, now_us)
    oldest, newest = math.min(oldest, now), now
  end
  if oldest <= now - length_us then
    redis.call('LPOP', key) -- mostly one leaves for one that comes
    count, oldest = count - 1, tonumber(first[2]) -- not one of the future: they are less than a length apart
    if oldest and oldest <= now - length_us then
      local gone = up_to(key, count, now - length_us)
      redis.call('LTRIM', key, gone, -1)
      count, oldest = count - gone, moment(key, 0)
    end
    if not oldest then return math.max(limit, 0), length_us, nil end
  end
  if count > limit then oldest = moment(key, count - math.max(limit, 1)) end -- the limit is lower than it was
  return math.max(limit - count, 0), oldest + length_us - now, newest
end

-- `newest`: as `look` returned it in the same call. A window lives on for one to two lengths, told once a length.
local function let_in(key, length_us, now_us, newest)
  redis.call('RPUSH', key, now_us)
  if not newest or math.floor(newest / length_us) ~= math.floor(tonumber(now_us) / length_us) then
    redis.call('PEXPIRE', key, int(length_us / 500))
  end
end
