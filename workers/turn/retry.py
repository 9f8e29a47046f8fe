"""Which errors are tried again, when, and how often: one policy object."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from shared.config import Settings
from shared.errors import SwitchboardError, UpstreamError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter; a provider's Retry-After is the least we wait."""

    max_attempts: int
    base_s: float
    cap_s: float
    horizon_s: float
    """A job may hold its conversation for this long after its first start."""
    draw: Callable[[float, float], float] = random.uniform

    @classmethod
    def of(cls, settings: Settings) -> "RetryPolicy":
        return cls(settings.max_attempts, settings.retry_base_s, settings.retry_cap_s, settings.retry_horizon_s)

    def delay_s(self, error: BaseException, *, attempt: int, running_s: float) -> float | None:
        """How long to wait before the next attempt; None when there is to be none.

        `attempt` is the one that failed, from 1; `running_s` the time since the first one started. What is not one
        of our errors is a surprise and worth another try.
        """
        if isinstance(error, SwitchboardError) and not error.retryable:
            return None
        if attempt >= self.max_attempts:
            return None
        delay_s = self.draw(0.0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))
        if isinstance(error, UpstreamError) and error.retry_after_s is not None:
            delay_s = max(delay_s, error.retry_after_s)
        return None if running_s + delay_s > self.horizon_s else delay_s
