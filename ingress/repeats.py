"""How a repeated message is recognised: by `Idempotency-Key`, else as an SDK's own retry.

The digest names the key within its tenant and route, the fingerprint the body and agent it was used with.
"""

import hashlib
import re
from collections.abc import Callable

from starlette.requests import Request

from ingress.requests import first_headers, header
from shared.errors import InvalidRequest
from shared.scripts import NO_REPEAT, Idempotency

MESSAGES_ROUTE = "POST /v1/agents/{agent_id}/messages"
_BARE = re.compile(r"[\x21-\x7e]{1,255}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')
"""A Structured Fields string (RFC 9651 §3.3.3), as the Idempotency-Key draft has it; many clients send a bare one."""


def idempotency_of(
    request: Request, *, agent_id: str, body: Callable[[], bytes], caller: str, route: str = MESSAGES_ROUTE
) -> Idempotency:
    """`caller` identifies the API key, `body` gives the same for bodies that mean the same; most requests do not ask.

    Raises InvalidRequest for an unusable key.
    """
    if b"idempotency-key" in first_headers(request.scope):
        sent = request.headers.getlist("idempotency-key")
        return Idempotency("key", _digest(route, _key(sent)), _fingerprint(agent_id, body()))
    tries = header(request.scope, b"x-stainless-retry-count")
    if not (tries.isascii() and tries.isdecimal()):
        return NO_REPEAT
    fingerprint = _fingerprint(agent_id, body())
    return Idempotency(
        "sdk-retry" if tries.strip("0") else "sdk-first", _digest(route, caller, fingerprint), fingerprint
    )


def _fingerprint(agent_id: str, body: bytes) -> str:
    return _digest(agent_id, body.decode())


def _key(sent: list[str]) -> str:
    text = sent[0].strip()
    if len(sent) == 1:
        if quoted := _QUOTED.fullmatch(text):
            return re.sub(r"\\(.)", r"\1", quoted[1])
        if not text.startswith('"') and _BARE.fullmatch(text):
            return text
    raise InvalidRequest("Idempotency-Key must be one string of 1 to 255 visible ASCII characters, quoted or bare.")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
