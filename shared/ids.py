"""Identifiers: UUIDv7 (RFC 9562 §5.7), so that ids sort by time and a lost reply can be retried with the same id."""

import os
import time
from functools import lru_cache
from typing import NewType
from uuid import UUID

JobId = NewType("JobId", str)
TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)

_last_ns = 0
_MS_NS, _SLOT_NS = 1_000_000, 245  # a slot is just over 1e6 / 4096 ns: one step always reaches the next value of rand_a
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""The digit with the two bits of the variant set, and two of the four it had."""


class _Entropy:
    """The kernel's random bytes, asked for by the page: a call for each id costs more than the id."""

    PAGE_BYTES = 4096

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)  # a child must not draw what its parent draws

    def forget(self) -> None:
        self._hex, self._at = "", 0
        self._tails: list[str] = []

    def hex(self, n_bytes: int) -> str:
        end = self._at + 2 * n_bytes
        if end > len(self._hex):
            self._hex, self._at, end = os.urandom(self.PAGE_BYTES).hex(), 0, 2 * n_bytes
        drawn, self._at = self._hex[self._at : end], end
        return drawn

    def tail(self) -> str:
        """The last two groups of a UUID: the variant, then 62 random bits."""
        if not self._tails:
            page, variant = os.urandom(self.PAGE_BYTES).hex(), _VARIANT
            self._tails = [
                f"{variant[page[at]]}{page[at + 1 : at + 4]}-{page[at + 4 : at + 16]}" for at in range(0, len(page), 16)
            ]
        return self._tails.pop()


_entropy = _Entropy()
random_hex = _entropy.hex
"""So many random bytes, as lower-case hexadecimal text."""


def uuid7() -> str:
    """A UUIDv7 as its 36-character string; strictly increasing within a process.

    48 bits of Unix milliseconds, then the sub-millisecond part in the 12 bits of `rand_a` (RFC 9562 §6.2,
    method 3), then 62 random bits. Two calls in one 1/4096 ms slot advance the clock by one slot.
    """
    global _last_ns  # noqa: PLW0603 - the one clock of the process
    now_ns = time.time_ns()
    now_ns = max(now_ns, _last_ns + _SLOT_NS)
    _last_ns = now_ns
    rest_ns = now_ns % _MS_NS
    return f"{_of_ms(now_ns // _MS_NS)}{rest_ns * 4096 // _MS_NS:03x}-{_entropy.tail()}"


@lru_cache(maxsize=2)  # a process makes many ids in a millisecond
def _of_ms(unix_ms: int) -> str:
    clock = f"{unix_ms:012x}"
    return f"{clock[:8]}-{clock[8:]}-7"


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical lower-case form."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
