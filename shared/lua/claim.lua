#!lua flags=allow-oom
-- Take due jobs for one worker incarnation. Atomic: a job is claimed by one worker, its attempt is counted and fenced
-- in the same instant. A claimed id stays in the queue zset with its score negated, as stock Job.result() needs it.
-- KEYS  1 queue     ARGV  1 worker · 2 n · 3 in_progress_ms · 4 max_events · 5 result_ttl_s · 6.. ids (none: any)
-- Returns see claim() in _queue.lua, or LOST when this incarnation has no lease
if not has_lease(KEYS[1], ARGV[1]) then return 'LOST' end
return claim(KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6] and { unpack(ARGV, 6) })
