"""What a provider's answer says is left of our limits there: `x-ratelimit-*` (OpenAI) and `anthropic-ratelimit-*`.

Called by the adapters with the headers of every answer. Servers that only speak a provider's protocol send none, or
some of them; what cannot be read is left out, as it is only a hint.
"""

import re
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from agents.api import Headroom

LONGEST_S = 3_600.0
"""A limit that is full again later than this (a day's) is asked for again by then."""

_OPENAI = {kind: (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}") for kind in ("requests", "tokens")}
_ANTHROPIC = {
    kind: (f"anthropic-ratelimit-{name}-remaining", f"anthropic-ratelimit-{name}-reset")
    for kind, name in {
        "requests": "requests", "tokens": "tokens", "input": "input-tokens", "output": "output-tokens",
    }.items()
}  # fmt: skip
_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


def of_openai(headers: Mapping[str, str]) -> Headroom | None:
    """None where nothing is said. Resets are durations: `1s`, `6m0s`, `120ms`, or plain seconds."""
    found = {kind: read for kind, names in _OPENAI.items() if (read := _read(headers, names, 0.0))}
    return Headroom(found, time.monotonic()) if found else None


def of_anthropic(headers: Mapping[str, str]) -> Headroom | None:
    """None where nothing is said. Resets are moments (RFC 3339), reckoned from the answer's own `date`."""
    if _ANTHROPIC["requests"][0] not in headers and _ANTHROPIC["tokens"][0] not in headers:
        return None
    now_s = _date_s(headers)
    found = {kind: read for kind, names in _ANTHROPIC.items() if (read := _read(headers, names, now_s))}
    return Headroom(found, time.monotonic()) if found else None


def until_reset_s(headers: Mapping[str, str]) -> float | None:
    """For a refusal without `retry-after`: when the limit that is used up is full again; None when none is."""
    headroom = of_openai(headers) or of_anthropic(headers)
    waits = [wait_s for left, wait_s in headroom.left.values() if left == 0] if headroom else []
    return max(waits, default=None)


def _read(headers: Mapping[str, str], names: tuple[str, str], now_s: float) -> tuple[int, float] | None:
    left, reset = headers.get(names[0]), headers.get(names[1])
    if left is None or reset is None or not left.isascii() or not left.isdecimal():
        return None
    wait_s = _moment_s(reset, now_s) if now_s else _duration_s(reset)
    return None if wait_s is None else (int(left), min(max(wait_s, 0.0), LONGEST_S))


def _duration_s(text: str) -> float | None:
    if _DURATION.fullmatch(text):
        return sum(float(amount) * _UNITS_S[unit] for amount, unit in _PART.findall(text))
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _moment_s(text: str, now_s: float) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() - now_s
    except (ValueError, OverflowError):
        return None


def _date_s(headers: Mapping[str, str]) -> float:
    """When the answer was made, by the provider's clock where it says so: ours may be wrong."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()
