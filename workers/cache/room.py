"""Whether the queue's Redis has room for what it could do without.

The ingress stops at 80 % of `maxmemory` (`ingress/pressure.py`), so that accepted jobs can always be worked on; kept
answers must not bring it there. Asked when an answer is to be kept, and of the server once a second at most.
"""

import asyncio
import time

from shared.redis import Commands

FULL_ABOVE = 0.8
LOOK_EVERY_S = 1.0


class Room:
    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._look: asyncio.Task[bool] | None = None
        self._looked_at = 0.0

    async def there(self) -> bool:
        """Who asks while the server is asked waits for that answer. Raises Unavailable when there is none."""
        now = time.monotonic()
        if self._look is None or (self._look.done() and now - self._looked_at >= LOOK_EVERY_S):
            self._looked_at = now
            self._look = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._look)

    async def _ask(self) -> bool:
        info = await self._commands.run("INFO", "memory")
        used, limit = (int(info.get(name, 0)) for name in ("used_memory", "maxmemory"))
        return limit == 0 or used <= FULL_ABOVE * limit
