"""Fields that all lines of one request share: its ids, and what its routes found out.

`begin` at the start of a request, `bind` as more is known; both cost a dictionary. Jobs, which may run within one
another's context, use `structlog.contextvars` instead, whose fields are put back when a block ends. Both are on every
line and every report.
"""

from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import EventDict

_request: ContextVar[dict[str, Any]] = ContextVar("request")


def begin(**fields: Any) -> None:
    """Nothing of an earlier request on the same connection is left."""
    _request.set(fields)


def bind(**fields: Any) -> None:
    known = _request.get(None)
    if known is None:
        _request.set(fields)
    else:
        known.update(fields)


def of_request() -> dict[str, Any]:
    """What `begin` and `bind` were given; not to be changed."""
    return _request.get({})


def everything() -> dict[str, Any]:
    """A job's fields before those of a request, should one have been made within the other."""
    return {**of_request(), **structlog.contextvars.get_contextvars()}


def merge(_logger: object, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: what the line itself says comes first."""
    return {**everything(), **event}
