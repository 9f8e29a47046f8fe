"""A worker's standing in its queue: a lease under a name of its own, kept by a thread, lost or given up.

Every life has a new name: what was claimed under an old one is fenced off for good. Nothing may be claimed outside of a
life, or nobody would take it back after a crash.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from workers.queue.lease import LeaseThread, new_incarnation
from workers.queue.scripts import QueueScripts

logger = logging.getLogger("switchboard.lease")


class Membership:
    """`join()` before claiming; `name` is this life's name, empty outside of one."""

    def __init__(
        self,
        scripts: QueueScripts,
        pool: ConnectionPool,
        *,
        lease_s: float,
        wedged_s: float,
        slots: int,
        on_cancel: Callable[[list[str]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._scripts, self._pool, self._slots = scripts, pool, slots
        self._lease_s, self._wedged_s = lease_s, wedged_s
        self._on_cancel, self._on_lost = on_cancel, on_lost
        self._thread: LeaseThread | None = None
        self.name = ""

    @property
    def standing(self) -> bool:
        """Whether the lease is held, as far as can be known without asking Redis."""
        return self._thread is not None and time.monotonic() - self._thread.renewed_at < self._lease_s

    async def join(self) -> None:
        """Starts a life, unless one is under way. Raises redis-py's errors."""
        if self.name:
            return
        name = new_incarnation()
        thread = LeaseThread(
            self._pool,
            self._scripts.queue,
            name,
            lease_s=self._lease_s,
            wedged_s=self._wedged_s,
            loop=asyncio.get_running_loop(),
            on_cancel=self._on_cancel,
            on_lost=self.lost,
        )
        await self._scripts.beat(name, int(self._lease_s * 1000), "join", slots=self._slots)
        thread.start()
        self.name, self._thread = name, thread

    def lost(self, name: str) -> None:
        """`name`'s lease is over: what runs under it may be running elsewhere. News of an earlier life are ignored."""
        if name == self.name and self._thread is not None:
            self._thread.stop()
            self.name, self._thread = "", None
            self._on_lost(name)

    async def leave(self) -> None:
        """Ends this life; what it still holds can be taken by others at once."""
        if self._thread is None:
            return
        name, thread = self.name, self._thread
        self.name, self._thread = "", None
        thread.stop()
        await asyncio.to_thread(thread.join)  # no thread outlives its worker
        with contextlib.suppress(RedisError, OSError):  # it runs out by itself
            await self._scripts.beat(name, 0, "leave")
