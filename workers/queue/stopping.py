"""Cancelling a task that talks to Redis, for good.

Once is not enough: redis-py looks for stray input under `asyncio.timeout(0)`, and a cancellation that was requested but
not yet delivered when that block is entered is taken for the timeout and swallowed (Python 3.11.7, redis-py 5.3.1).
"""

import asyncio
from typing import Any

_PATIENCE_S = 0.1


async def stop(task: "asyncio.Task[Any]") -> None:
    """Cancels `task` until it is over."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE_S)


def raise_if_cancelled() -> None:
    """For a loop that must not survive a cancellation that one of its calls swallowed."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
