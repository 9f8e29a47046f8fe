"""What goes to Redis, and what its refusals and redis-py's failures mean to a caller."""

from typing import TypeAlias

from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis-py's own, which is not the builtin
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's own, which is not the builtin
)

from shared.errors import Unavailable

Argument: TypeAlias = str | bytes | int | float

UNREACHABLE = "Redis cannot be reached"
_TRANSIENT = (ConnectionError, TimeoutError, OSError, BusyLoadingError, ReadOnlyError)
_AWAY = frozenset({"LOADING", "BUSY"})
"""Codes of a server that works on something else: its data are not loaded, or a script does not end."""
_NO_WRITES = frozenset({"OOM", "MISCONF", "NOREPLICAS"})


class NotPrimary(Unavailable):
    """READONLY: the primary is somewhere else now, and another connection may find it."""


def refusal(text: str) -> Exception:
    """The error for an error reply: Unavailable, or redis-py's ResponseError when the command itself was wrong."""
    code, _, explained = text.partition(" ")
    if code == "NOSCRIPT":
        return NoScriptError(explained)
    if code in _AWAY:
        return Unavailable(UNREACHABLE)
    if code in _NO_WRITES:
        return Unavailable("Redis does not take writes", retry_after_s=5)
    if code == "READONLY":
        return NotPrimary(UNREACHABLE)
    return ResponseError(explained if code == "ERR" else text)


def unavailable(error: BaseException) -> Unavailable | None:
    """What a failure of redis-py means to a caller; None when it is not a matter of availability."""
    closed = isinstance(error, RuntimeError) and "closed" in str(error)  # uvloop, of a socket that closes under it
    if closed or isinstance(error, _TRANSIENT):
        return Unavailable(UNREACHABLE)
    refused = isinstance(error, ResponseError) and str(error).startswith(("READONLY", "MISCONF", "NOREPLICAS"))
    if refused or isinstance(error, OutOfMemoryError):  # redis-py cuts the code off the messages it has a class for
        return Unavailable("Redis does not take writes", retry_after_s=5)
    return None
