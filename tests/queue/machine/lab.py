"""One Redis database in the hands of synchronous code, as hypothesis needs it: scripts, snapshots, and time.

Time passes without waiting: `pass_time` moves every due time in the database back by whole ticks. Whatever the model
says lasts is an odd half of a tick, so that the seconds an example really takes decide nothing.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from arq.connections import ArqRedis

from ops.dead.requeue import Requeue
from shared import keys
from shared.config import Settings
from shared.redis import Commands, connect
from shared.scripts import Intake, Script, read_events
from shared.wire import Event
from tests.queue.machine.snapshot import LOOK, Snapshot
from workers.ledger.purse import Purse
from workers.queue import codec
from workers.queue.scripts import QueueScripts

T = TypeVar("T")

reap = Script("reap")
"""For processes that do not claim; nothing of ours calls it yet."""

TICK_S = 1_000
MAX_DEPTH = 26
MAX_EVENTS = 12
RESULT_TTL_S = 40 * TICK_S
IN_PROGRESS_MS = 40 * TICK_S * 1000

_PASS_TIME = """
local ms = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'zset' then
    local flat = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #flat, 2 do
      local score = tonumber(flat[i + 1])
      if score > 1e12 then redis.call('ZADD', key, score - ms, flat[i])
      elseif score < -1e12 then redis.call('ZADD', key, score + ms, flat[i]) end
    end
  elseif kind == 'hash' and string.sub(key, 1, 7) == 'sb:job:' then
    for _, name in ipairs({ 'score', 'due_ms', 'first_ms' }) do
      if redis.call('HEXISTS', key, name) == 1 then redis.call('HINCRBY', key, name, -ms) end
    end
  end
end
"""


def lasting_s(ticks: int) -> int:
    """Seconds that are over once `ticks` ticks have passed, and not before."""
    return ticks * TICK_S - TICK_S // 2


class Lab:
    """Everything the machine can reach. `close` it."""

    def __init__(self, redis_url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.settings = Settings.read(
            {
                "redis_url": redis_url,
                "max_queue_depth": MAX_DEPTH,
                "ttl_s": lasting_s(1),
                "result_ttl_s": RESULT_TTL_S,
                "max_events": MAX_EVENTS,
            }
        )
        self.commands = Commands(connect(redis_url))
        self.intake = Intake(self.commands, self.settings)
        self.requeue = Requeue(self.commands, self.settings)
        self.passed_ms = 0
        pool = self.commands.redis.connection_pool
        self.arq = ArqRedis(pool_or_conn=pool, job_serializer=codec.encode, job_deserializer=codec.decode)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(what)

    def command(self, *parts: str | int | float | bytes) -> Any:
        return self.do(self.commands.run(*parts))

    def queue(self, name: str) -> QueueScripts:
        return QueueScripts(
            self.commands,
            keys.queue(name),
            in_progress_ms=IN_PROGRESS_MS,
            max_events=MAX_EVENTS,
            result_ttl_s=RESULT_TTL_S,
        )

    def purse(self, name: str) -> Purse:
        return Purse(self.commands, keys.queue(name))

    def moment(self, in_s: int) -> datetime:
        """Of the server's clock, to the millisecond."""
        seconds, us = (int(part) for part in self.command("TIME"))
        return datetime.fromtimestamp(seconds + in_s, UTC) + timedelta(milliseconds=us // 1000)

    def look(self) -> Snapshot:
        now_ms, entries = self.command("EVAL", LOOK, 0)
        return Snapshot.read(now_ms, entries, self.passed_ms)

    def read_events(self, known: dict[str, int]) -> dict[str, list[Event]]:
        """What readers of each job are given after number `known`."""
        asked = (read_events(self.commands, job_id, after=seq) for job_id, seq in known.items())
        answers = self.do(_all(asked))
        return {job_id: events for job_id, (_, events) in zip(known, answers, strict=True)}

    def pass_time(self, ticks: int) -> None:
        ms = ticks * TICK_S * 1000
        self.passed_ms += ms
        self.command("EVAL", _PASS_TIME, 0, ms)

    def empty(self) -> None:
        self.command("FLUSHDB")
        self.command("HSET", keys.MONEY, "epoch", "1")
        self.passed_ms = 0

    def close(self) -> None:
        self.do(self.commands.aclose())
        self._loop.close()


async def _all(asked: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*asked))
