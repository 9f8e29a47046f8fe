"""For clients that push no wake token, stock arq's: Redis itself says when the queue changes (client-side tracking).

A look at the queue arms the server to tell this connection, once, of the queue's next change. Every change by our own
workers comes by here too, and wakes every idle worker, so a look that finds nothing due makes the next one wait: fleets
without stock clients pay a few looks a second. A connection that is lost costs latency, never a job: workers also poll.
"""

import asyncio
import logging
import math
from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError

from shared.redis import Line, open_line
from workers.queue.wake import Waker

logger = logging.getLogger("switchboard.watch")

_BACK_OFF_S = 1.0
_REFUSED_BACK_OFF_S = 300.0
_ANSWER_S = 5.0
_SILENCE_S = 30.0
"""After it we look anyway, which shows whether the connection is alive."""
_PAUSE_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Least time between two looks: after one that found a job, and after one, two, three … in a row that found none."""


class QueueWatch:
    """Nudges `waker` when something is due and this worker is hungry. `run` it beside the waker."""

    def __init__(self, pool: ConnectionPool, queue: str, waker: Waker) -> None:
        self._pool, self._queue, self._waker = pool, queue, waker
        self.looks = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                changed = self._changed.set
                async with open_line(self._pool, timeout_s=_ANSWER_S, on_push=changed, on_end=changed) as line:
                    await self._follow(line)
            except ResponseError as error:  # an ACL or a proxy that does not let us
                logger.warning("the queue cannot be watched, jobs of stock clients wait for the next poll: %s", error)
                await asyncio.sleep(_REFUSED_BACK_OFF_S)
            except Exception as error:  # noqa: BLE001 - it is a convenience: the worker polls as well
                logger.warning("watching the queue: %s", error)
                await asyncio.sleep(_BACK_OFF_S)

    async def _follow(self, line: Line) -> None:
        await line.ask(("CLIENT", "TRACKING", "ON"))
        clock, vain = asyncio.get_running_loop().time, 0
        while True:
            await self._waker.until_hungry()
            looked_at = clock()
            due_in_s = await self._look(line)
            if due_in_s <= 0:
                self._waker.event.set()
                vain = 0
            else:
                vain = min(vain + 1, len(_PAUSE_S) - 1)
            await self._next_change(due_in_s if due_in_s > 0 else _SILENCE_S)
            await asyncio.sleep(max(0.0, looked_at + _PAUSE_S[vain] - clock()))

    async def _look(self, line: Line) -> float:
        """Seconds until a job is due, by the server's clock. From before its answer on, changes are told."""
        self.looks += 1
        self._changed.clear()
        soonest = ("ZRANGEBYSCORE", self._queue, "(0", "+inf", "WITHSCORES", "LIMIT", 0, 1)
        first, (seconds, micros) = await line.ask(soonest, ("TIME",))
        return _score(first) / 1000 - int(seconds) - int(micros) / 1_000_000 if first else math.inf

    async def _next_change(self, due_in_s: float) -> None:
        """Or the time at which a job is due: stock clients round theirs up to a ms that may be to come."""
        try:
            async with asyncio.timeout(min(due_in_s, _SILENCE_S)):
                await self._changed.wait()
        except TimeoutError:
            return


def _score(first: list[Any]) -> float:
    """RESP3 gives pairs, and numbers as numbers."""
    pair = first[0] if isinstance(first[0], list) else first
    return float(pair[1])
