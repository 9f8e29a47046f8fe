#!lua flags=allow-oom
-- Append events of running jobs; one call carries what many jobs have to say. Fenced by the claim: a worker that was
-- given up on cannot write into the stream of the attempt that replaced it.
-- KEYS  1 queue     ARGV  1 worker · 2 max_events · then per event: id · claim · type · data (JSON)
-- Returns ids whose claim is no longer this worker's
local ids, lost = {}, {}
for i = 3, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
local claims = claims_of(KEYS[1], ARGV[1], ids)
for n, id in ipairs(ids) do
  local at = 4 * n - 1
  if claims[n] == ARGV[at + 1] then
    append_event(id, ARGV[at + 2], ARGV[at + 3], ARGV[2])
    redis.call('PUBLISH', 'sb:notify:' .. id, 'e')
  else
    lost[#lost + 1] = id
  end
end
return lost
