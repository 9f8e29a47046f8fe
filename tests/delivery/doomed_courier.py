"""A delivery process that kills itself between the answer and its own note of it. Run: `doomed_courier.py`."""

import os
import signal
import sys
from typing import Any

from shared.config import Settings
from workers.delivery.books import DeliveryBooks
from workers.delivery.main import run


async def strike(*_args: Any) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


if __name__ == "__main__":
    DeliveryBooks.record = strike  # type: ignore[method-assign]
    sys.exit(run(Settings.read()))
