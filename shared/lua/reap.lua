#!lua flags=allow-oom
-- Hand back the jobs of dead workers; claim does the same by itself, this is for processes that do not claim.
-- KEYS  1 queue
-- Returns how many jobs went back
local moved = reap(KEYS[1], (clock()))
if moved > 0 then wake(KEYS[1]) end
return moved
