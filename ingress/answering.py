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
        lines = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (head.encode("latin-1"), b"x-request-id: ", self._request_id.encode(), b"\r\n\r\n", body)
        cycle.transport.write(b"".join(lines))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()  # whoever waits for the caller to leave
        cycle.on_response()
        return True


def _simple(cycle: RequestResponseCycle) -> bool:
    """Nothing was sent before, the caller is there and reads, and its connection stays open."""
    return (
        cycle.keep_alive
        and not cycle.response_started
        and not cycle.disconnected
        and not cycle.flow.write_paused
        and cycle.scope["method"] != "HEAD"
    )
