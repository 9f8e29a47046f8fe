"""A delivery process that kills itself at a point of a reply. Run: `doomed_courier.py POINT NTH` (of its requests)."""

import os
import signal
import sys
from typing import Any

from shared.config import Settings
from workers.delivery.books import DeliveryBooks
from workers.delivery.main import run
from workers.replies.books import PartBooks
from workers.replies.provider import Provider

POINTS = {
    "asked": (Provider, "send"),
    "taken": (PartBooks, "end"),
    "noted": (DeliveryBooks, "record"),
}
"""Before a request; between its answer and our note of it; after the last note."""


def doom(point: str, nth: int) -> None:
    owner, name = POINTS[point]
    original = getattr(owner, name)
    calls = 0

    async def strike(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return await original(*args, **kwargs)

    setattr(owner, name, strike)


if __name__ == "__main__":
    doom(sys.argv[1], int(sys.argv[2]))
    sys.exit(run(Settings.read()))
