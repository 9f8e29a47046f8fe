"""Ending background tasks for certain."""

import asyncio
from typing import Any

ASK_AGAIN_S = 0.1


async def stop(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel and wait; how they end is of no interest any more.

    Asks again and again: before Python 3.12 `asyncio.wait_for`, through which redis-py sends, can lose a cancellation.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ASK_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it as forgotten
