"""For clients that push no wake token, stock arq's: Redis itself says when the queue changes (client-side tracking).

A look at the queue arms the server to tell this connection, once, of the queue's next change. Every change by our own
workers comes by here too, and wakes every idle worker, so a look that finds nothing due makes the next one wait: fleets
without stock clients pay a few looks a second. A connection that is lost costs latency, never a job: workers also poll.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from hiredis import PushNotification
from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError

from workers.queue.wake import Waker

logger = logging.getLogger("switchboard.watch")

_BACK_OFF_S = 1.0
_REFUSED_BACK_OFF_S = 300.0
_ANSWER_S = 5.0
_SILENCE_S = 30.0
"""After it we look anyway, which shows whether the connection is alive."""
_PAUSE_S = (0.02, 0.05, 0.1, 0.25)
"""Least time between two looks: after one that found a job, and after one, two, three that found none."""


class QueueWatch:
    """Nudges `waker` when something is due and this worker is hungry. `run` it beside the waker."""

    def __init__(self, pool: ConnectionPool, queue: str, waker: Waker) -> None:
        self._connect: Callable[[], Any] = lambda: pool.connection_class(
            **{**pool.connection_kwargs, "protocol": 3, "socket_timeout": None, "decode_responses": False}
        )
        self._queue, self._waker = queue, waker
        self.looks = 0
        self._changed = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            connection = self._connect()
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await connection.connect()
                await self._follow(connection)
            except ResponseError as error:  # an ACL or a proxy that does not let us
                logger.warning("the queue cannot be watched, jobs of stock clients wait for the next poll: %s", error)
                await asyncio.sleep(_REFUSED_BACK_OFF_S)
            except Exception as error:  # noqa: BLE001 - it is a convenience: the worker polls as well
                logger.warning("watching the queue: %s", error)
                await asyncio.sleep(_BACK_OFF_S)
            finally:
                await connection.disconnect(nowait=True)

    async def _follow(self, connection: Any) -> None:
        await self._ask(connection, ("CLIENT", "TRACKING", "ON"))
        clock, vain = asyncio.get_running_loop().time, 0
        while True:
            await self._waker.until_hungry()
            looked_at = clock()
            if await self._look(connection):
                self._waker.event.set()
                vain = 0
            else:
                vain = min(vain + 1, len(_PAUSE_S) - 1)
            await self._next_change(connection)
            await asyncio.sleep(max(0.0, looked_at + _PAUSE_S[vain] - clock()))

    async def _look(self, connection: Any) -> bool:
        """Whether a job is due, by the server's clock. From before its answer on, changes are told."""
        self.looks += 1
        self._changed = False
        soonest = ("ZRANGEBYSCORE", self._queue, "(0", "+inf", "WITHSCORES", "LIMIT", 0, 1)
        first, (seconds, micros) = await self._ask(connection, soonest, ("TIME",))
        return bool(first) and _score(first) <= int(seconds) * 1000 + int(micros) // 1000

    async def _ask(self, connection: Any, *commands: tuple[Any, ...]) -> list[Any]:
        replies: list[Any] = []
        async with asyncio.timeout(_ANSWER_S):
            await connection.send_packed_command(connection.pack_commands(commands))
            while len(replies) < len(commands):
                reply = await connection.read_response()
                if isinstance(reply, PushNotification):
                    self._changed = True
                elif isinstance(reply, ResponseError):
                    raise reply
                else:
                    replies.append(reply)
        return replies

    async def _next_change(self, connection: Any) -> None:
        try:
            async with asyncio.timeout(_SILENCE_S):
                while not self._changed:
                    self._changed = isinstance(await connection.read_response(), PushNotification)
        except TimeoutError:
            return


def _score(first: list[Any]) -> float:
    """RESP3 gives pairs, and numbers as numbers."""
    pair = first[0] if isinstance(first[0], list) else first
    return float(pair[1])
