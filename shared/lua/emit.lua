#!lua flags=allow-oom
-- Append events of running jobs; one call carries what many jobs have to say. Fenced by the claim: a worker that was
-- given up on cannot write into the stream of the attempt that replaced it.
-- KEYS  1 queue     ARGV  1 worker · 2 max_events · then per event: id · claim · type · data (JSON)
-- Returns ids whose claim is no longer this worker's
local held, lost = KEYS[1] .. ':held:' .. ARGV[1], {}
for i = 3, #ARGV, 4 do
  local id = ARGV[i]
  if redis.call('HGET', held, id) == ARGV[i + 1] then
    append_event(id, ARGV[i + 2], ARGV[i + 3], ARGV[2])
    redis.call('PUBLISH', 'sb:notify:' .. id, 'e')
  else
    lost[#lost + 1] = id
  end
end
return lost
