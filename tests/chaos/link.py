"""A TCP proxy for one process and one server, whose connections can be cut, stalled, or robbed of their answers.

Bytes pass unread. `answered` counts what has come back from the server: how the harness sees that a process is talking
to it again. A server that is down is a refused connection, as without the proxy.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]
CHUNK = 65_536


class Link:
    """Made by `open_link`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._swallowing = False
        self.port = 0
        self.answered = 0
        """Bytes the server's answers had so far."""
        self.swallowed = 0
        """Bytes of answers that were lost on purpose."""

    def cut(self) -> None:
        """Break every connection now; new ones are let through."""
        for connection in self._connections:
            connection.cancel()

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Within it nothing passes in either direction; afterwards everything that was held back does."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @contextlib.contextmanager
    def swallowing(self) -> Iterator[None]:
        """Within it the server is asked and its answers are lost; then the connections break."""
        self._swallowing = True
        try:
            yield
        finally:
            self._swallowing = False
            self.cut()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("connections are accepted in tasks")
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # cut, or the server is away
                await self._carry(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self._connect()
        there = asyncio.ensure_future(self._pump(reader, server_writer, answers=False))
        back = asyncio.ensure_future(self._pump(server_reader, writer, answers=True))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            server_writer.transport.abort()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await source.read(CHUNK):
            await self._flowing.wait()
            if answers and self._swallowing:
                self.swallowed += len(data)
                continue
            sink.write(data)
            await sink.drain()
            self.answered += len(data) if answers else 0

    async def close(self) -> None:
        self.cut()
        while self._connections:
            await asyncio.wait(self._connections)


@contextlib.asynccontextmanager
async def open_link(connect: Connect) -> AsyncIterator[Link]:
    """A link on a free loopback port; `connect` opens a connection to the server behind it."""
    link = Link(connect)
    server = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        await link.close()
