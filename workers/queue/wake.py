"""Wake-up without polling: a blocking pop on the queue's token list, on a connection of its own.

A claim stands behind it on the same connection: Redis makes it the moment a token comes, and its jobs arrive with the
token, one round trip earlier than if the worker had to ask. A token wakes one worker, not the herd. A worker that
cannot take a job puts the token back. Losing one costs latency, never a job: the worker also looks by itself when the
next thing is due, and every `poll_delay`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import ConnectionPool

from shared.redis import Argument, Line, open_line
from workers.queue.taking import Standing

logger = logging.getLogger("switchboard.wake")

_BACK_OFF_S = 1.0
_BLOCK_S = 1
"""Also how long strays may have to wait for the claim that stands behind it to end."""


class Waker:
    """Pops tokens while `hungry()`; `event` is set when the queue should be looked at.

    `stand` and `stood` are the taker's, where there is one.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        queue: str,
        hungry: Callable[[], bool],
        *,
        stand: Callable[[], Standing | None] = lambda: None,
        stood: Callable[[Standing, Any], bool] = lambda _standing, _reply: True,
    ) -> None:
        self._pool = pool
        self._tokens = f"{queue}:wake"
        self._hungry, self._stand, self._stood = hungry, stand, stood
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
        wait = ("BLPOP", self._tokens, _BLOCK_S)
        standing = self._stand()
        if standing is None:
            (popped,) = await line.ask(wait)
            look = popped is not None
        else:
            popped, look = await self._pop_and_claim(line, wait, standing)
        if look and self._hungry():
            self.event.set()
        elif look and popped is not None:
            await line.ask(("LPUSH", self._tokens, popped[1]))

    async def _pop_and_claim(self, line: Line, wait: tuple[Argument, ...], standing: Standing) -> tuple[Any, bool]:
        """The token, if there was one, and whether it is still good for a look at the queue."""
        reply = None
        try:
            popped, reply = await line.ask(wait, standing.command, refusals=True)
        finally:
            look = self._stood(standing, reply)
        if isinstance(popped, Exception):
            raise popped
        return popped, look
