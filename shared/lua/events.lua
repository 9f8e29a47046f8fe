#!lua flags=allow-oom,no-writes
-- Events of a job after a given one, as of one instant. Two kinds are not stored, because its record tells them: the
-- start of the first attempt, which is number 1, and the end, which is the last.
-- KEYS  1 job record · 2 events     ARGV  1 number of the last one seen · 2 most entries to read
-- Returns {number of the newest one (0: none, or no such job), then number · type · data (JSON) of each, in order}
local after = tonumber(ARGV[1])
local v = redis.call('HMGET', KEYS[1], 'seq', 'ended', 'state', 'started_us', 'run')
local stored = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
local events = { v[1] or '0' }

local function add(number, kind, data)
  events[#events + 1], events[#events + 2], events[#events + 3] = number, kind, data
end

if after < 1 and v[4] and v[5] == '1' then add('1', 'job.started', '{"attempt":1}') end
for _, entry in ipairs(stored) do add(string.match(entry[1], '^%d+'), entry[2][2], entry[2][4]) end
if v[2] and tonumber(v[2]) > after and #stored < tonumber(ARGV[2]) then
  add(v[2], 'job.ended', '{"state":"' .. v[3] .. '"}')
end
return events
