"""The other end of one HTTP exchange: its headers, its body, and whether it is still there.

A model call costs money from the moment it was taken on, so every wait of an exchange is a wait for the caller to
leave. The watch is started by the first such wait: an exchange that never waits pays nothing for it.
"""

import asyncio
from collections.abc import Iterable

from starlette.types import Receive, Scope, Send

Header = tuple[bytes, bytes]


class Callers:
    """All callers somebody waits on; `dismiss` ends those waits when the process stops."""

    def __init__(self) -> None:
        self._watches: set[asyncio.Task[None]] = set()
        self._dismissed = False

    def watch(self, receive: Receive) -> asyncio.Task[None]:
        watch = asyncio.create_task(_until_gone(receive))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        if self._dismissed:
            watch.cancel()
        return watch

    def dismiss(self) -> None:
        self._dismissed = True
        for watch in list(self._watches):
            watch.cancel()


class Caller:
    def __init__(self, scope: Scope, receive: Receive, send: Send, callers: Callers) -> None:
        self._headers: list[Header] = scope["headers"]
        self._receive = receive
        self._send = send
        self._callers = callers
        self._watch: asyncio.Task[None] | None = None

    def has_key(self) -> bool:
        """Any non-empty `Authorization: Bearer` or `x-api-key` will do: both SDKs may send either."""
        for name, value in self._headers:
            if name == b"authorization" and value[:7].lower() == b"bearer " and value[7:].strip():
                return True
            if name == b"x-api-key" and value.strip():
                return True
        return False

    async def body(self) -> bytes | None:
        """The whole body, or None when the caller left while sending it."""
        chunks: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def gone_within(self, wait_s: float | None) -> bool:
        """Wait for so long, or for ever; True as soon as the caller has left."""
        if self._watch is None:
            self._watch = self._callers.watch(self._receive)
        done, _ = await asyncio.wait({self._watch}, timeout=wait_s)
        return bool(done)

    async def gone_before(self, event: asyncio.Event) -> bool:
        """Wait for the event; True when the caller leaves first."""
        if self._watch is None:
            self._watch = self._callers.watch(self._receive)
        happening = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({self._watch, happening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            happening.cancel()
        return not event.is_set()

    def let_go(self) -> None:
        """End the watch; call it when the exchange is over."""
        if self._watch is not None:
            self._watch.cancel()

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def send(self, body: bytes, *, more: bool) -> None:
        """Part of the answer. An exchange that ends after `more=True` ends with the connection closed on the caller."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
