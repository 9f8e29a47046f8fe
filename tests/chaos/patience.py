"""Waiting for what must happen: a condition with a deadline, and an error that says what did not come."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

POLL_S = 0.02


class NeverCame(AssertionError):
    """What the harness waited for did not happen in time."""


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float, what: str) -> None:
    """Returns once `condition()` holds; raises NeverCame after `timeout_s`."""
    if not await holds(condition, timeout_s):
        raise NeverCame(f"not within {timeout_s:g} s: {what}")


async def holds(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float) -> bool:
    """Whether `condition()` comes to hold within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if (await value) if inspect.isawaitable(value) else value:
            return True
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(POLL_S)
