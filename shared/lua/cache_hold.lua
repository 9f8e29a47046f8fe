#!lua flags=allow-oom
-- Renew the flights of one worker. One that ran out belongs to nobody or to another asker by now: it is left alone.
-- KEYS  flights     ARGV  1 lease_ms · then the token of each flight
for i, flight in ipairs(KEYS) do
  if redis.call('GET', flight) == ARGV[i + 1] then redis.call('PEXPIRE', flight, ARGV[1]) end
end
