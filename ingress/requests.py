"""What several routes read from a request: its body within bounds, `Prefer: wait`, whether the caller is there.

Nothing here knows what a request means.
"""

import re
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from shared.errors import TooLarge

_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*', re.IGNORECASE | re.ASCII)


def first_headers(scope: Scope) -> Mapping[bytes, bytes]:
    """The first header of each name, in lower case. `request.headers` reads the whole list for every question."""
    found: dict[bytes, bytes] | None = scope.get("first_headers")
    if found is None:
        found = scope["first_headers"] = dict(reversed(scope["headers"]))
    return found


def header(scope: Scope, name: bytes) -> str:
    """Empty without one."""
    return first_headers(scope).get(name, b"").decode("latin-1")


class Incoming(Request):
    """A request whose body is read by `read_body` only: Starlette's own start makes ready for forms and streams too."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self._receive = scope, receive


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, chunked or not. Raises TooLarge as soon as that is certain.

    Starlette's RequestBodyLimitMiddleware is not used: it replaces any answer to a large body by plain text.
    """
    declared = header(request.scope, b"content-length")
    body, more = bytearray(), not declared.isdecimal() or int(declared) <= max_bytes
    too_large = not more
    while more and not too_large:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more, too_large = message.get("more_body", False), len(body) > max_bytes
    if too_large:
        raise TooLarge(f"The body has more than {max_bytes} bytes.")
    return bytes(body)


def preferred_wait_s(request: Request) -> int:
    """N of `Prefer: wait=N` (RFC 7240), 0 without one. Preferences we do not know are ignored, as it demands."""
    for header in request.headers.getlist("prefer"):
        for preference in header.split(","):
            if found := _WAIT.fullmatch(preference.partition(";")[0]):
                return int(found[1])
    return 0


async def gone(request: Request) -> None:
    """Returns when the caller has closed the connection. Only for requests whose body nobody reads."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
