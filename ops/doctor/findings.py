"""What a check says: one finding per thing looked at, good news included."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Works now, and will surprise somebody."""
    FAULT = "fault"
    """Does not work, or can lose what was accepted. The command exits with 1."""


class Finding(msgspec.Struct, frozen=True):
    check: str
    """What was looked at: `redis.eviction`."""
    level: Level
    what: str
    mend: str | None = None
    """One command or one setting."""


def ok(check: str, what: str) -> Finding:
    return Finding(check, Level.OK, what)


def warning(check: str, what: str, mend: str | None = None) -> Finding:
    return Finding(check, Level.WARNING, what, mend)


def fault(check: str, what: str, mend: str | None = None) -> Finding:
    return Finding(check, Level.FAULT, what, mend)
