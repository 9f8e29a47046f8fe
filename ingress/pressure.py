"""Whether Redis has room for more jobs, sampled beside the hot path.

Admission closes at 80 % of `maxmemory`, so that what is already accepted can always be worked on: claims, results and
cancellations need memory too.
"""

import asyncio

import structlog

from ingress import metrics
from shared.errors import QueueFull, Unavailable
from shared.redis import Commands

log = structlog.get_logger(__name__)

CLOSED_ABOVE = 0.8
SAMPLE_EVERY_S = 1.0


class Pressure:
    """`run` samples until cancelled; `check` is what admission asks."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self.full = False

    def check(self) -> None:
        """Raises QueueFull while there is no room."""
        if self.full:
            raise QueueFull("Redis is short of memory; new messages are not accepted for now.", retry_after_s=5)

    async def run(self) -> None:
        while True:
            try:
                await self.sample()
            except Unavailable as error:
                log.debug("memory_not_sampled", error=str(error))  # admission fails by itself then
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def sample(self) -> None:
        info = await self._commands.run("INFO", "memory")
        used, limit = (int(info.get(name, 0)) for name in ("used_memory", "maxmemory"))
        full = limit > 0 and used > CLOSED_ABOVE * limit
        if full != self.full:
            log.warning("admission_closed" if full else "admission_opened", used_bytes=used, maxmemory_bytes=limit)
        self.full = full
        metrics.admission_closed.set(full)
