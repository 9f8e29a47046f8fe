"""Lets the planned faults strike while the load runs: each at its place, one of a kind at a time, kinds at once."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.faults import KINDS, Site
from tests.chaos.patience import POLL_S, NeverCame
from tests.chaos.plan import Plan

LEAD = 40
"""Messages that may be accepted beyond the place of a fault that has not struck yet."""


@dataclass(frozen=True, slots=True)
class Window:
    """When a fault was at work, in Unix seconds; its consequences may come a little later."""

    kind: str
    from_s: float
    to_s: float


@dataclass
class Storm:
    plan: Plan
    site: Site
    accepted: Callable[[], int]
    """How many messages have been accepted."""
    changed: Callable[[], Awaitable[None]]
    """Called when the load may go further."""
    windows: list[Window] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Faults whose effect or end never came."""
    _next: dict[str, int] = field(default_factory=dict)

    def limit(self) -> int:
        """How far the load may go before the next fault has struck."""
        return min(self._next.values(), default=1 << 60) + LEAD

    def __post_init__(self) -> None:
        self._next = {kind: places[0] for kind, places in self.plan.strikes.items() if places}

    async def run(self) -> None:
        """Until every fault has struck and is over."""
        async with asyncio.TaskGroup() as group:
            for kind in self.plan.strikes:
                group.create_task(self._run_kind(kind))

    async def _run_kind(self, kind: str) -> None:
        rng = random.Random(f"{self.plan.seed} {kind}")  # noqa: S311 - to be replayed, not to be secret
        places = self.plan.strikes[kind]
        for place, following in pairwise([*places, None]):
            while self.accepted() < (place or 0):
                await asyncio.sleep(POLL_S)
            if following is None:
                self._next.pop(kind)
            else:
                self._next[kind] = following
            await self.changed()
            from_s = time.time()
            try:
                await KINDS[kind].strike(self.site, rng)
            except NeverCame as error:
                self.notes.append(f"{kind}: {error}")
            self.windows.append(Window(kind, from_s, time.time()))
