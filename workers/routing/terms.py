"""What a provider may be asked, and what is heard of it, in the words of `shared/lua/_provider.lua`.

`Terms` are made once per worker from its settings and go with every offer to `reserve`; `told_of` says with `settle`
how a call went. Only a provider's own faults count against it: never a call we stopped, a request it had reason to
refuse, or a rate limit (that one pauses the model instead). A refusal of our account pauses it at once, and for long.
"""

import math
import time
from collections.abc import Mapping, Sequence

from agents.api import Completion, Headroom
from shared.config import Settings
from shared.errors import (
    AccountRejected,
    AgentError,
    SwitchboardError,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)

PROVIDERS = ("openai", "anthropic")
KINDS = ("requests", "tokens", "input", "output")
"""What providers count, in the script's order."""
TOO_LARGE = "too_large"
"""The call alone needs more tokens than its provider may be asked for in a minute: it will never fit."""

ACCOUNT_PAUSE_S = 300
"""How long nobody asks a model that refused our key or our money: a person must mend that. Then one call tries."""


class Terms:
    """`of(provider, …)`: the script's `terms` of one candidate."""

    def __init__(self, settings: Settings) -> None:
        self.patience_s = settings.provider_patience_s
        window_ms, cooldown_ms = settings.breaker_window_s * 1000, settings.breaker_cooldown_s * 1000
        shared = (self.patience_s * 1000, settings.breaker_failures, window_ms, cooldown_ms)
        self._fixed = {provider: _words(*_caps(settings, provider), *shared) for provider in PROVIDERS}

    def of(self, provider: str, *, input_tokens: int, output_tokens: int) -> str:
        return f"{self._fixed[provider]} {input_tokens} {output_tokens}"


def _caps(settings: Settings, provider: str) -> tuple[int | None, ...]:
    return tuple(getattr(settings, f"{provider}_{cap}") for cap in ("concurrency", "rpm", "tpm"))


def told_of(outcome: Completion | BaseException) -> str:
    """Empty when it says nothing of the provider."""
    if isinstance(outcome, Completion):
        return _words("ok", None, *_heard(outcome.headroom))
    if isinstance(outcome, AccountRejected):
        return _words("account", ACCOUNT_PAUSE_S * 1000)
    if not isinstance(outcome, UpstreamUnavailable | UpstreamRateLimited):
        return ""
    pause_ms = None if outcome.retry_after_s is None else outcome.retry_after_s * 1000
    return _words("fail" if isinstance(outcome, UpstreamUnavailable) else None, pause_ms, None)


def _heard(headroom: Headroom | None) -> tuple[float | None, ...]:
    """Since when, then what is left and for how long that still holds (ms) of each kind; what has run out is None."""
    if headroom is None:
        return (None,)
    age_s = time.monotonic() - headroom.heard_s
    left: Mapping[str, tuple[int, float]] = {
        kind: (left, holds_s - age_s) for kind, (left, holds_s) in headroom.left.items() if holds_s > age_s
    }
    said = [(left[kind][0], left[kind][1] * 1000) if kind in left else (None, None) for kind in KINDS]
    return (age_s * 1000, *(number for pair in said for number in pair))


def _words(*values: str | float | None) -> str:
    return " ".join("-" if v is None else v if isinstance(v, str) else f"{math.ceil(v)}" for v in values)


def refused(provider: str, model: str, reason: str, retry_after_s: float) -> SwitchboardError:
    """Why no candidate could be asked at all, for a turn that cannot wait that long."""
    name = f"{provider}:{model}"
    if reason == TOO_LARGE:
        return AgentError(f"This needs more tokens than {provider} may be asked for in a minute.", code=TOO_LARGE)
    if reason in ("open", "probing"):
        message = f"{name} has failed too often; it is tried again in {retry_after_s:.1f} s."
        return UpstreamUnavailable(message, provider=provider, retry_after_s=retry_after_s, billed=False)
    if reason == "account":
        why = "our key, its money or its right to the model"
        message = f"{name} refuses our account ({why}); it is tried again in {retry_after_s:.0f} s."
        return AccountRejected(message, provider=provider, billed=False)
    message = f"{name} takes no more calls for {retry_after_s:.1f} s ({reason})."
    return UpstreamRateLimited(message, provider=provider, retry_after_s=retry_after_s, billed=False)


def best(errors: Sequence[UpstreamError]) -> UpstreamError:
    """Of the failures of all candidates: the one that promises most for another attempt."""
    return min(errors, key=lambda error: (not error.retryable, error.retry_after_s or 0.0))
