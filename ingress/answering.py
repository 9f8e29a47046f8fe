"""How an answer leaves: `send` of one request, which adds the request's id, and writes a whole answer in one piece.

uvicorn takes an answer in two messages and looks at each header with regular expressions: a third of what serving an
empty request costs. `whole` hands the same bytes to uvicorn's connection at once; it is for answers whose headers are
all ours. It refuses wherever there is anything to decide, then the answer goes through `__call__` as any other.
"""

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class Answering:
    """Made for every request by the request log."""

    __slots__ = ("_request_id", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status = 0
        """Of the answer; 0: none has begun."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id.encode())]
        await self._send(message)

    def whole(self, status: int, head: str, body: bytes) -> bool:
        """False: nothing was done. `head`: complete header lines, each with its end, the body's length among them."""
        cycle = getattr(self._send, "__self__", None)
        if type(cycle) is not RequestResponseCycle or not _simple(cycle):
            return False
        self.status = status
        lines = f"{head}x-request-id: {self._request_id}\r\n\r\n".encode("latin-1")
        cycle.transport.write(_beginning(status, cycle.default_headers) + lines + body)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()  # whoever waits for the caller to leave
        cycle.on_response()
        return True


_made: tuple[int, list[tuple[bytes, bytes]], bytes] = 0, [], b""


def _beginning(status: int, server_headers: list[tuple[bytes, bytes]]) -> bytes:
    """Status line and uvicorn's own headers, of which it makes a new list each second, for the date."""
    global _made  # noqa: PLW0603 - the last one is nearly always the one
    made = _made
    if made[1] is not server_headers or made[0] != status:
        lines = [b"%b: %b\r\n" % header for header in server_headers]
        _made = made = status, server_headers, STATUS_LINE[status] + b"".join(lines)
    return made[2]


def _simple(cycle: RequestResponseCycle) -> bool:
    """Nothing was sent before, the caller is there and reads, and its connection stays open."""
    return (
        cycle.keep_alive
        and not cycle.response_started
        and not cycle.disconnected
        and not cycle.flow.write_paused
        and cycle.scope["method"] != "HEAD"
    )
