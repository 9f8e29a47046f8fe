"""Wake-up without polling: a blocking pop on the queue's token list, on a connection of its own.

A token wakes one worker, not the herd. A worker that cannot take a job puts the token back. Losing one costs latency,
never a job: the worker also looks by itself when the next thing is due, and every `poll_delay`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

logger = logging.getLogger("switchboard.wake")

_BACK_OFF_S = 1.0
_BLOCK_S = 5


class Waker:
    """Pops tokens while `hungry()`; `event` is set for each."""

    def __init__(self, pool: ConnectionPool, queue: str, hungry: Callable[[], bool]) -> None:
        kwargs = {
            **pool.connection_kwargs,
            "socket_timeout": _BLOCK_S + 5,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": False,
        }
        own = ConnectionPool(connection_class=pool.connection_class, max_connections=2, **kwargs)
        self._redis: Any = Redis(connection_pool=own)  # redis-py types its commands for both worlds at once
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
        try:
            while True:
                await self._pop_while_hungry()
        finally:
            await self._redis.aclose(close_connection_pool=True)

    async def _pop_while_hungry(self) -> None:
        await self.until_hungry()
        try:
            token = await self._redis.blpop([self._tokens], timeout=_BLOCK_S)
            if token is None:
                return
            if self._hungry():
                self.event.set()
            else:
                await self._redis.lpush(self._tokens, token[1])
        except Exception as error:  # noqa: BLE001 - without it every job would wait for the next poll
            logger.warning("wake-up connection: %s", error)
            await asyncio.sleep(_BACK_OFF_S)
