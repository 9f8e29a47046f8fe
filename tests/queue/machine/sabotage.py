"""Ways to break the scripts, one at a time: each takes away something a promise rests on. The machine must notice all.

Texts are of `shared/lua`; where a script is written anew, its sabotage is too (`small.edited` says which is missing).
"""

from tests.queue.machine.small import Edit

AT_ONCE: dict[str, Edit] = {
    "finish does not compare claims": ("local ours = mine[id] == ARGV[starts[n] + 1]", "local ours = mine[id]"),
    "a lease that was over is revived": ("not deadline or tonumber(deadline) <= now_ms", "not deadline"),
    "a follower is eligible at once": ("if position == 0 and not has_place then", "if not has_place then"),
    "messages are answered newest first": (
        "redis.call('RPUSH', list, id) - 1\nif position",
        "redis.call('LPUSH', list, id) - 1\nif position",
    ),
    "the next one is not let go": ("table.insert(entering[tenant], head)", ""),
    "an unstarted end does not let the next one go": (
        "if head then make_eligible(queue, tenant, head, due_ms, (clock())) end",
        "",
    ),
    "a released job goes to the end": (
        "    redis.call('ZADD', queue, score, id)\n  end\n  wake",
        "    redis.call('ZADD', queue, now_ms, id)\n  end\n  wake",
    ),
    "a tenant's line is served from its end": ("ZPOPMIN", "ZPOPMAX"),
    "a newcomer stands before the others": (
        "and now_ms - HEAD_START or now_ms",
        "and now_ms - HEAD_START or now_ms - 60000",
    ),
    "room is not passed on": ("for tenant, n in pairs(tenants) do let_in", "for tenant, n in pairs({}) do let_in"),
    "a retry that waits takes room": ("if delay_ms == 0 then bump(", "if true then bump("),
    "every head is let in": ("heads + i <= HEADS and waiting or parked", "waiting"),
    "a job that was started can expire": ("redis.call('ZREM', queue .. ':expiry', unpack(turns))", ""),
    "an end is not kept for Postgres": ("'payload', redis.call('GET', 'arq:job:' .. id) or ''", "'payload', ''"),
    "a release counts": ("redis.call('HINCRBY', 'sb:job:' .. id, 'attempts', -1)", ""),
    "a retry is forgotten by the sweeper": ("redis.call('ZADD', queue .. ':delayed', now_ms + delay_ms, id)", ""),
    "a merged message's place is lost": (
        "redis.call('ZADD', line, score, heir)",
        "redis.call('ZADD', line, (clock()), heir)",
    ),
    "a message that was taken in can expire": ("  redis.call('ZREM', its_queue .. ':expiry', other)\n", ""),
    "a busy conversation takes more": ("if policy == 'reject' and", "if false and"),
    "an ended job stays for good": ("  redis.call('EXPIRE', record, ttl_s)\n", ""),
    "nobody is told of a new message": ("    wake(queue, #waiting / 2)\n", ""),
}
"""Noticed within seconds, in every run."""

IN_TIME: dict[str, Edit] = {
    "a head put back is not counted": ("if delay_ms == 0 then bump(queue .. ':heads', tenant, 1) end", ""),
    "readers of merged messages wait for ever": ("      announce_end(other, result_ttl_s)\n", ""),
    "numbers start again with the next run": ("local seq = known[4] or int((run - 1) * 1000000)", "local seq = 0"),
    "nobody is told of a job that came back": ("  wake(queue) -- wakes a sleeper also", "  -- wakes a sleeper also"),
    "a worker sleeps through a retry": (
        "earliest(redis.call('ZRANGEBYSCORE', queue, '(' .. int(now_ms)",
        "local _ = (redis.call('ZRANGEBYSCORE', queue, '(' .. int(now_ms)",
    ),
    "finish ends an attempt twice": ("mine[id] = nil", "mine[id] = mine[id]"),
    "emit does not compare claims": ("if claims[n] == ARGV[at + 1] then", "if true then"),
    "reserve does not compare claims": (
        "if claimed ~= ARGV[at + 1] then return { 'LOST' } end",
        "",
    ),
    "settle does not compare claims": ("local ours = claims[n] == ARGV[at + 1]", "local ours = true"),
    "a call is reserved twice": ("if known[2] then return { 'HELD', cjson.decode(known[2]).of, 0 } end", ""),
    "a late reservation stands": ("if known[1] then return { 'LOST' } end", ""),
    "a worker without a lease may claim": ("return deadline and tonumber(deadline) > clock()", "return true"),
    "a follower's end lets somebody go": (
        "    redis.call('LREM', list, 1, id)\n    return nil",
        "    redis.call('LREM', list, 1, id)",
    ),
    "a retry does not find its place": (
        "redis.call('ZADD', queue, v[1], id)\n",
        "redis.call('ZADD', queue, (clock()), id)\n",
    ),
    "a reaped job goes to the end": (
        "redis.call('ZADD', queue, string.sub(score, 2), id)",
        "redis.call('ZADD', queue, now_ms, id)",
    ),
    "a sweep knows no bound": (
        "':expiry', '-inf', now_ms, 'LIMIT', 0, BATCH",
        "':expiry', '-inf', now_ms, 'LIMIT', 0, 1000",
    ),
    "a reaped job stays with its worker": ("      redis.call('HDEL', held, id)\n", ""),
    "a cancellation is not passed on": ("redis.call('SADD', queue .. ':cancel:' .. worker, id)", ""),
    "messages are merged in the wrong order": (
        "redis.call('LPUSH', mine, table.concat",
        "redis.call('RPUSH', mine, table.concat",
    ),
    "a window never ends": ("if v[2] == 'queued' then enter(queue, v[1], id, now_ms) end", ""),
    "interrupt lets go on what runs": (
        "if v[1] ~= 'queued' then return request_cancel(",
        "if v[1] ~= 'queued' then return type(",
    ),
    "what was shown is not reset": ("append_numbered(id, seq - 1, 'attempt.reset', data, max_events)", ""),
    "ledger rows go before Postgres has them": ("if posted == '1' and v[1] then", "if v[1] then"),
}
"""Noticed within a hundred examples: for the thorough profile."""
