"""Identifiers: UUIDv7 (RFC 9562 §5.7), so that ids sort by time and a lost reply can be retried with the same id."""

import secrets
import time
from typing import NewType
from uuid import UUID

JobId = NewType("JobId", str)
TenantId = NewType("TenantId", str)
ConversationId = NewType("ConversationId", str)
UserId = NewType("UserId", str)
CallId = NewType("CallId", str)

_last_ns = 0


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
    value = unix_ms << 80 | 7 << 76 | rand_a << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(UUID(int=value))


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical lower-case form."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
