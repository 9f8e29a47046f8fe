#!lua flags=allow-oom
-- For tests: what reserve and settle do with a provider, at a moment of the test's choosing.
-- ARGV  now_ms · ask | take | give · then the function's own arguments
local now_ms = tonumber(ARGV[1])
if ARGV[2] == 'give' then
  provider_give(ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], now_ms)
  return 'OK'
end
local provider, model, tokens, terms, call_id, worker = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local kind, wait_ms, why = provider_refusal(provider, model, tokens, terms, now_ms, call_id)
if kind then return { kind, wait_ms, why } end
return { 'held', 0, provider_take(provider, model, tokens, terms, now_ms, call_id, 'arq:queue', worker) }
