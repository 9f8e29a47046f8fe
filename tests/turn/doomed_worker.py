"""A worker process that kills itself (SIGKILL) at a named point of its first turn. Run: `doomed_worker.py POINT`.

It is the product's own worker; only the one method at the point is wrapped. SIGSTOP points freeze it instead.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agents import registry
from agents.registry import load
from shared.config import Settings
from workers.ledger.purse import Held, Purse
from workers.main import run
from workers.queue.scripts import QueueScripts
from workers.turn.run import TurnRunner
from workers.turn.store import TurnStore

BEFORE: dict[str, tuple[type, str]] = {
    "claimed": (TurnRunner, "__call__"),
    "answered": (TurnStore, "end"),
    "finishing": (QueueScripts, "finish"),
}
AFTER: dict[str, tuple[type, str]] = {
    "loaded": (TurnStore, "load_remembering"),
    "booked": (Purse, "reserve"),
    "streaming": (QueueScripts, "emit"),
    "committed": (TurnStore, "end"),
    "finished": (QueueScripts, "finish"),
}
POINTS = [*BEFORE, *AFTER]
SETTLED = {"settled": (Purse, "settle")}
"""Beside the commit of a turn's only call, after the first call of several."""
TOGETHER_BEFORE: dict[str, tuple[type, str]] = {"committing together": (TurnStore, "_commit_all")}
TOGETHER_AFTER: dict[str, tuple[type, str]] = {"committed together": (TurnStore, "_commit_all")}
"""Around the commit of several turns in one transaction."""
TOGETHER = [*TOGETHER_BEFORE, *TOGETHER_AFTER]


def _held(answer: object) -> bool:
    """Whether a reservation was made: it may be answered with a question first."""
    return isinstance(answer, Held)


REACHED: dict[str, Callable[[object], bool]] = {"booked": _held}
"""Points that not every return of their method is."""


def doom(point: str, signal_number: int) -> None:
    """Wrap the method of `point` so that the process gets `signal_number` there, the first time only."""
    before = BEFORE | TOGETHER_BEFORE
    owner, name = (before | AFTER | TOGETHER_AFTER | SETTLED)[point]
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    struck = False

    def strike() -> None:
        nonlocal struck
        if not struck:
            struck = True
            os.kill(os.getpid(), signal_number)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if point in before:
            strike()
        result = await original(*args, **kwargs)
        if point not in REACHED or REACHED[point](result):
            strike()
        return result

    setattr(owner, name, wrapped)


def with_test_agents() -> None:
    """Workers of this process also have the agents in `tests/turn/agents`."""
    registry.load = partial(load, ("agents", "tests.turn.agents"))


if __name__ == "__main__":
    doom(sys.argv[1], getattr(signal, sys.argv[2]))
    with_test_agents()
    sys.exit(run(Settings.read()))
