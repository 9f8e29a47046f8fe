"""Wake-up without polling: a blocking pop on the queue's token list, on a connection of its own.

A token wakes one worker, not the herd. A worker that cannot take a job puts the token back. Losing one costs latency,
never a job: the worker also looks by itself when the next thing is due, and every `poll_delay`.
"""

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import ConnectionPool

from shared.redis import Line, open_line

logger = logging.getLogger("switchboard.wake")

_BACK_OFF_S = 1.0
_BLOCK_S = 5


class Waker:
    """Pops tokens while `hungry()`; `event` is set for each."""

    def __init__(self, pool: ConnectionPool, queue: str, hungry: Callable[[], bool]) -> None:
        self._pool = pool
        self._tokens = f"{queue}:wake"
        self._hungry = hungry
        self._appetite = asyncio.Event()
        self.event = asyncio.Event()

    def nudge(self) -> None:
        """Something changed in this process: look at the queue again."""
        self._appetite.set()
        self.event.set()

    async def until_hungry(self) -> None:
        while not self._hungry():
            self._appetite.clear()
            await self._appetite.wait()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with open_line(self._pool, timeout_s=2 * _BLOCK_S) as line:
                    while True:
                        await self._pop_when_hungry(line)
            except Exception as error:  # noqa: BLE001 - without it every job would wait for the next poll
                logger.warning("wake-up connection: %s", error)
                await asyncio.sleep(_BACK_OFF_S)

    async def _pop_when_hungry(self, line: Line) -> None:
        await self.until_hungry()
        (popped,) = await line.ask(("BLPOP", self._tokens, _BLOCK_S))
        if popped is None:
            return
        if self._hungry():
            self.event.set()
        else:
            await line.ask(("LPUSH", self._tokens, popped[1]))
