#!lua
-- Let one request of somebody unknown in, if its window has room. Atomic because a flood comes at the same time.
-- KEYS  1 window (_rates.lua)
-- ARGV  1 limit · 2 length_us
-- Returns {entry, room, µs}: what to take out again if it was somebody we know after all ('': it was not let in), the
-- entries there is room for now, and µs until there is room for one more
local limit, length_us = tonumber(ARGV[1]), tonumber(ARGV[2])
local _, now_us = clock()
local room, left_us, newest = look(KEYS[1], limit, length_us, now_us)
if room < 1 then return { '', 0, left_us } end
let_in(KEYS[1], length_us, now_us, newest)
return { now_us, room - 1, left_us }
