"""Whether the queue's Redis has room for what it could do without.

The ingress stops at 80 % of `maxmemory` (`ingress/pressure.py`), so that accepted jobs can always be worked on; kept
answers must not bring it there. Asked when an answer is to be kept, and of the server once a second at most.
"""

import time

from shared.redis import Commands

FULL_ABOVE = 0.8
LOOK_EVERY_S = 1.0


class Room:
    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._there = False
        self._looked_at: float | None = None

    async def there(self) -> bool:
        """Raises Unavailable when the server cannot be asked."""
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            info = await self._commands.run("INFO", "memory")
            used, limit = (int(info.get(name, 0)) for name in ("used_memory", "maxmemory"))
            self._there = limit == 0 or used <= FULL_ABOVE * limit
        return self._there
