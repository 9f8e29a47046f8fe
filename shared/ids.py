"""Identifiers: UUIDv7 (RFC 9562 §5.7), so that ids sort by time and a lost reply can be retried with the same id."""

import os
import time
from typing import NewType
from uuid import UUID

JobId = NewType("JobId", str)
TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)

_MS_NS, _SLOT_NS = 1_000_000, 245  # a slot is just over 1e6 / 4096 ns: one step always reaches the next value of rand_a
_RAND_A = [f"{value:03x}-" for value in range(4096)]


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
            count = self.PAGE_BYTES // 8
            drawn = int.from_bytes(os.urandom(2 * count)) & int.from_bytes(b"\x3f\xff" * count)
            variants = (drawn | int.from_bytes(b"\x80\x00" * count)).to_bytes(2 * count)
            pairs = zip(_groups(variants, 2), _groups(os.urandom(6 * count), 6), strict=True)
            self._tails = list(map("-".join, pairs))
        return self._tails.pop()


def _groups(page: bytes, n_bytes: int) -> list[str]:
    return page.hex("-", n_bytes).split("-")


_entropy = _Entropy()
random_hex = _entropy.hex
"""So many random bytes, as lower-case hexadecimal text."""


_last_ns = 0
_first_groups = -1, ""
"""A Unix ms, and what an id made in it begins with: a process makes many in one."""


def uuid7() -> str:
    """A UUIDv7 as its 36-character string; strictly increasing within a process.

    48 bits of Unix milliseconds, then the sub-millisecond part in the 12 bits of `rand_a` (RFC 9562 §6.2,
    method 3), then 62 random bits. Two calls in one 1/4096 ms slot advance the clock by one slot.
    """
    global _last_ns, _first_groups  # noqa: PLW0603 - the one clock of the process
    _last_ns = now_ns = max(time.time_ns(), _last_ns + _SLOT_NS)
    unix_ms, rest_ns = divmod(now_ns, _MS_NS)
    if _first_groups[0] != unix_ms:
        clock = f"{unix_ms:012x}"
        _first_groups = unix_ms, f"{clock[:8]}-{clock[8:]}-7"
    return f"{_first_groups[1]}{_RAND_A[rest_ns * 4096 // _MS_NS]}{_entropy.tail()}"


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical lower-case form."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
