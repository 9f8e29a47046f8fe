"""Fields that all lines of one request share: its ids, and what its routes found out.

`begin` at the start of a request, `bind` as more is known; both cost a dictionary. Jobs, which may run within one
another's context, use `structlog.contextvars` instead, whose fields are put back when a block ends. Both are on every
line and every report.
"""

import hashlib
import re
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import EventDict

_request: ContextVar[dict[str, Any]] = ContextVar("request")
_OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch
_key = b""


def configure(secret: str) -> None:
    """`secret` makes the digests of `conversation`: the same in every process of a deployment."""
    global _key  # noqa: PLW0603 - of the process
    _key = hashlib.sha256(secret.encode()).digest()


def conversation(conversation_id: str) -> str:
    """As lines and reports may name it, which outlive their users: an id of ours as it is; one that a caller or a
    messenger chose may name somebody, and is a digest, the same every time: `~0123456789ab`."""
    if _OURS(conversation_id):
        return conversation_id
    return "~" + hashlib.blake2b(conversation_id.encode(errors="replace"), key=_key, digest_size=6).hexdigest()


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
