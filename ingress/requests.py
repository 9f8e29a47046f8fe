"""What several routes read from a request: its body within bounds, `Prefer: wait`, whether the caller is there.

Nothing here knows what a request means.
"""

import re

from starlette.requests import Request

from shared.errors import TooLarge

_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*', re.IGNORECASE | re.ASCII)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, chunked or not. Raises TooLarge as soon as that is certain.

    Starlette's RequestBodyLimitMiddleware is not used: it replaces any answer to a large body by plain text.
    """
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if not declared.isdecimal() or int(declared) <= max_bytes:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                break
        else:
            return bytes(body)
    raise TooLarge(f"The body has more than {max_bytes} bytes.")


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
