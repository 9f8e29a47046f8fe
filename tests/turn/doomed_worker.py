"""A worker process that kills itself (SIGKILL) at a named point of its first turn. Run: `doomed_worker.py POINT`.

It is the product's own worker; only the one method at the point is wrapped. SIGSTOP points freeze it instead.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from shared.config import Settings
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
    "loaded": (TurnStore, "load"),
    "booked": (QueueScripts, "book"),
    "streaming": (QueueScripts, "emit"),
    "committed": (TurnStore, "end"),
    "finished": (QueueScripts, "finish"),
}
POINTS = [*BEFORE, *AFTER]


def doom(point: str, signal_number: int) -> None:
    """Wrap the method of `point` so that the process gets `signal_number` there, the first time only."""
    owner, name = (BEFORE | AFTER)[point]
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    struck = False

    def strike() -> None:
        nonlocal struck
        if not struck:
            struck = True
            os.kill(os.getpid(), signal_number)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if point in BEFORE:
            strike()
        result = await original(*args, **kwargs)
        strike()
        return result

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    doom(sys.argv[1], getattr(signal, sys.argv[2]))
    sys.exit(run(Settings.read()))
