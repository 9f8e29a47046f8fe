"""What became of an attempt, and when the next one is made: the schedule of deliveries is here and nowhere else.

Figures as Svix has them (docs.svix.com/retries): eight attempts over about 28 hours.
"""

import random
import time
from typing import Any

import msgspec

RETRY_AFTER_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""Seconds from one failure to the next attempt, from the first failure on."""
MOST_FAILURES = len(RETRY_AFTER_S) + 1
JITTER = 0.1
"""Part of a pause by which it is longer or shorter: what failed together is not tried together."""
LONGEST_RETRY_AFTER_S = 86_400
"""A receiver may ask for a pause of its own (Retry-After), not for one without end."""


class Delivered(msgspec.Struct, frozen=True):
    status: int | None = None
    """HTTP status; None for e-mail."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is stable; `message` is for people and holds no secret of ours."""

    code: str
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    """What the receiver asked for."""
    final: bool = False
    """Trying again would not help."""
    gone: bool = False
    """The endpoint says that it is no more (410)."""
    blame: bool = True
    """Whether it counts against the receiver: not when we, or something between us, failed."""


Outcome = Delivered | Failed


def recorded(outcome: Outcome, *, failures: int, latency_s: float) -> dict[str, Any]:
    """The JSON that `end_delivery_attempt` takes. `failures`: those before this attempt."""
    latency_ms = round(latency_s * 1_000, 3)
    if isinstance(outcome, Delivered):
        return {"delivered": True, "blame": False, "gone": False, "status": outcome.status, "latency_ms": latency_ms}
    return {
        "delivered": False,
        "retry_us": next_attempt_us(outcome, failures),
        "blame": outcome.blame,
        "gone": outcome.gone,
        "status": outcome.status,
        "code": outcome.code,
        "message": outcome.message,
        "latency_ms": latency_ms,
    }


def next_attempt_us(failed: Failed, failures: int) -> int | None:
    """Unix µs; None: no more. Never before the receiver wants it, nor before the schedule has it."""
    if failed.final or failed.gone or failures >= len(RETRY_AFTER_S):
        return None
    pause_s = RETRY_AFTER_S[failures] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
    asked_s = min(failed.retry_after_s or 0.0, LONGEST_RETRY_AFTER_S)
    return time.time_ns() // 1_000 + round(max(pause_s, asked_s) * 1_000_000)
