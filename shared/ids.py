"""Identifiers: UUIDv7 (RFC 9562 §5.7), so that ids sort by time and a lost reply can be retried with the same id."""

import os
import time
from typing import NewType
from uuid import UUID

JobId = NewType("JobId", str)
TenantId = NewType("TenantId", str)
ConversationId = NewType("ConversationId", str)
UserId = NewType("UserId", str)
CallId = NewType("CallId", str)

_last_ns = 0
_VARIANT = 0b10 << 62
_RAND_B = (1 << 62) - 1


class _Entropy:
    """The kernel's random bytes, asked for by the page: a call for each id costs more than the id."""

    PAGE_BYTES = 4096

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)  # a child must not draw what its parent draws

    def forget(self) -> None:
        self._page, self._at = b"", 0

    def read(self, n: int) -> bytes:
        if self._at + n > len(self._page):
            self._page, self._at = os.urandom(self.PAGE_BYTES), 0
        self._at += n
        return self._page[self._at - n : self._at]


_entropy = _Entropy()


def uuid7() -> str:
    """A UUIDv7 as its 36-character string; strictly increasing within a process.

    48 bits of Unix milliseconds, then the sub-millisecond part in the 12 bits of `rand_a` (RFC 9562 §6.2,
    method 3), then 62 random bits. Two calls in one 1/4096 ms slot advance the clock by one slot.
    """
    global _last_ns  # noqa: PLW0603 - the one clock of the process
    slot_ns = 245  # just over 1e6 / 4096, so that one step always reaches the next value of rand_a
    _last_ns = now_ns = max(time.time_ns(), _last_ns + slot_ns)
    unix_ms, rest_ns = divmod(now_ns, 1_000_000)
    rand_a = rest_ns * 4096 // 1_000_000
    drawn = int.from_bytes(_entropy.read(8), "big")
    clock = f"{unix_ms:012x}7{rand_a:03x}"
    rest = f"{drawn & _RAND_B | _VARIANT:016x}"
    return f"{clock[:8]}-{clock[8:12]}-{clock[12:]}-{rest[:4]}-{rest[4:]}"


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical lower-case form."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
