"""Waiting for a provider that is busy: first come, first served, one line per provider and worker process.

Only the first of a line asks Redis, however many wait: it is woken when a call of this process ends, and else asks
again by itself. Whoever comes while there is a line stands at its end. Waiting is no attempt; it ends at once with a
cancel, a lost lease or a worker that leaves (the turn's task is cancelled), at the latest with the turn's own time.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from workers import metrics

LONGEST_NAP_S = 0.25
"""Between two questions to Redis about a provider whose slots other workers may free."""
LONGEST_SLEEP_S = 1.0
"""The same where the script knows when there is room."""


draw: Callable[[float, float], float] = random.uniform
"""So that not all processes ask at the same moment."""


class Line:
    """`first` is held by the one that may ask; `freed` is set when it is worth asking again."""

    def __init__(self) -> None:
        self.first = asyncio.Lock()
        self.freed = asyncio.Event()


class Lines:
    """Of one worker process."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, Line] = defaultdict(Line)

    def of(self, provider: str) -> Line:
        return self._lines[provider]

    def freed(self, provider: str) -> None:
        """A call of ours has ended, and Redis knows."""
        self._lines[provider].freed.set()

    @asynccontextmanager
    async def place(self, provider: str) -> AsyncIterator["Place"]:
        """For a turn that wants `provider` next; waits for its turn where there is a line."""
        place = Place(self)
        try:
            if self.of(provider).first.locked():
                await place.join(provider)
            yield place
        finally:
            place.leave()


class Place:
    """One turn's, in one line at most."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._line: Line | None = None
        self._began_s: float | None = None
        self._provider = ""

    async def wait(self, provider: str, retry_after_s: float) -> None:
        """Returns when it is worth asking for `provider` again."""
        if self._line is not self._lines.of(provider) and await self.join(provider):
            return  # others have waited before us: what we were told is old
        line = self._lines.of(provider)
        if retry_after_s <= LONGEST_NAP_S:
            retry_after_s *= draw(0.5, 1.0)
        try:
            async with asyncio.timeout(min(retry_after_s, LONGEST_SLEEP_S)):
                await line.freed.wait()
        except TimeoutError:
            return
        finally:
            line.freed.clear()

    async def join(self, provider: str) -> bool:
        """Whether there was a line."""
        self._step_out()
        self._provider, self._began_s = provider, self._began_s or time.monotonic()
        line = self._lines.of(provider)
        stood = line.first.locked()
        await line.first.acquire()
        self._line = line
        return stood

    def leave(self) -> None:
        """However it ends."""
        self._step_out()
        if self._began_s is not None:
            metrics.count_wait(self._provider, time.monotonic() - self._began_s)

    def _step_out(self) -> None:
        if self._line is not None:
            self._line.first.release()
            self._line = None
