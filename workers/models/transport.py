"""HTTP/1.1 for thousands of model streams at once: httptools on asyncio, idle connections in a stack.

Used by the provider SDKs through `httpx2.AsyncClient`. httpx2's own pool walks all its connections twice per request:
with 1,000 streams open that is 3 ms of CPU a call, more than everything else together. Here a call costs the same
however many are open. A body closed before its end closes its connection; nothing is retried.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, cast

import httptools
import httpx2

Origin = tuple[str, str, int]
"""Scheme, host, port."""

_BUFFER_BYTES = 256 * 1024
"""Unread body beyond this stops reading from the socket until the reader has caught up."""


class ModelTransport(httpx2.AsyncBaseTransport):
    """`keepalive_s`: how long an idle connection is kept; providers close theirs after a minute or more."""

    def __init__(self, *, keepalive_s: float = 30.0) -> None:
        self._keepalive_s = keepalive_s
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request and are still open."""
        return sum(connection.reusable for stack in self._idle.values() for connection in stack)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await self.ask(Form(request), await request.aread())
        return answer.response()

    async def ask(self, form: "Form", content: bytes) -> "Answer":
        """The head of the answer to a request like `form`, with this body. Raises httpx2's exceptions."""
        origin = form.origin
        connection = self._take(origin) or await self._connect(origin, form.connect_timeout_s)
        try:
            connection.send(form.head(len(content)), content, form.read_timeout_s)
            await connection.response_started()
        except BaseException:
            connection.abort()
            raise
        return Answer(connection.status, connection.headers, _Body(self, origin, connection))

    async def aclose(self) -> None:
        idle, self._idle = self._idle, {}
        for connection in (each for stack in idle.values() for each in stack):
            connection.abort()

    def give_back(self, origin: Origin, connection: "_Connection") -> None:
        """Keep a connection whose response was read to its end; close any other."""
        if connection.reusable:
            connection.idle_since_s = connection.loop.time()
            self._idle.setdefault(origin, deque()).append(connection)
        else:
            connection.abort()

    def _take(self, origin: Origin) -> "_Connection | None":
        """The connection used last, so that those a burst needed grow old and are closed."""
        stack = self._idle.get(origin, deque())
        while stack:
            connection = stack.pop()
            oldest_s = connection.loop.time() - self._keepalive_s
            if stack and stack[0].idle_since_s < oldest_s:
                stack.popleft().abort()
            if connection.reusable and connection.idle_since_s >= oldest_s:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin, timeout_s: float | None) -> "_Connection":
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        tls = self._tls_context() if scheme == "https" else None
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(lambda: _Connection(loop), host, port, ssl=tls)
        except TimeoutError as error:
            raise httpx2.ConnectTimeout(f"no connection within {timeout_s} s") from error
        except OSError as error:  # ssl.SSLError is one
            raise httpx2.ConnectError(str(error)) from error
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        """httpx2's defaults: certifi's roots, or those named by SSL_CERT_FILE and SSL_CERT_DIR."""
        self._tls = self._tls or httpx2.create_ssl_context()
        return self._tls


class Form:
    """All of a request but its body and that one's length: read once, sent as often as one likes."""

    def __init__(self, request: httpx2.Request) -> None:
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        self.connect_timeout_s, self.read_timeout_s = timeouts.get("connect"), timeouts.get("read")
        self.origin = _origin(request.url)
        self._before, self._after = _head(request)

    def head(self, body_bytes: int) -> bytes:
        """Request line and headers."""
        return b"%s%d%s" % (self._before, body_bytes, self._after) if self._after else self._before


class Answer:
    """A response whose head has arrived. What reads it must close it, as it would an `httpx2.Response`."""

    def __init__(self, status: int, raw_headers: list[tuple[bytes, bytes]], stream: "_Body") -> None:
        self.status = status
        self._raw_headers = raw_headers
        self.headers = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in raw_headers}
        """By name in lower case; of several with one name the last."""
        self.stream = stream

    def response(self) -> httpx2.Response:
        """The same for those who know httpx2 only; this one is not to be used any more."""
        extensions = {"http_version": b"HTTP/1.1"}
        return httpx2.Response(self.status, headers=self._raw_headers, stream=self.stream, extensions=extensions)

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        return aiter(self.stream)

    async def aclose(self) -> None:
        await self.stream.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, transport: ModelTransport, origin: Origin, connection: "_Connection") -> None:
        self._transport = transport
        self._origin = origin
        self._connection: _Connection | None = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is not None and (piece := await self._connection.read()):
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Idempotent: a connection given back may already serve another request."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport.give_back(self._origin, connection)


class _Connection(asyncio.Protocol):
    """One connection, one response at a time. The parser calls the `on_…` methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.idle_since_s = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._socket: asyncio.Transport
        self._parser: Any = None
        self._read_timeout_s: float | None = None
        self._pieces: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._started = self._complete = self._keep_alive = self._lost = False
        self._fault: Exception | None = None

    @property
    def reusable(self) -> bool:
        return self._complete and self._keep_alive and not self._lost and self._fault is None

    def send(self, head: bytes, content: bytes, read_timeout_s: float | None) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._read_timeout_s = read_timeout_s
        self.status, self.headers = 0, []
        self._pieces.clear()
        self._buffered_bytes = 0
        self._started = self._complete = False
        self._socket.write(head + content)

    async def response_started(self) -> None:
        while not self._started:
            await self._more()

    async def read(self) -> bytes:
        """Everything that has arrived since the last call; empty at the end of the body."""
        while not self._pieces:
            if self._complete:
                return b""
            await self._more()
        joined = b"".join(self._pieces)
        self._pieces.clear()
        self._buffered_bytes = 0
        if self._paused:
            self._paused = False
            self._socket.resume_reading()
        return joined

    def abort(self) -> None:
        self._socket.abort()

    async def _more(self) -> None:
        """Wait for the next bytes. Raises httpx2's exceptions."""
        if self._fault is not None:
            raise self._fault
        self._waiter = self.loop.create_future()
        timeout_s = self._read_timeout_s
        timer = None if timeout_s is None else self.loop.call_later(timeout_s, self._too_late, self._waiter)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _too_late(self, waiter: "asyncio.Future[None]") -> None:
        if not waiter.done():
            waiter.set_exception(httpx2.ReadTimeout(f"nothing received for {self._read_timeout_s} s"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, fault: Exception) -> None:
        self._fault = self._fault or fault
        self._wake()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._complete or self._parser is None:  # bytes nobody asked for
            self._fail(httpx2.RemoteProtocolError("unexpected data"))
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx2.RemoteProtocolError(f"not HTTP/1.1 as expected: {error}"))
            self.abort()
        self._wake()
        if self._buffered_bytes > _BUFFER_BYTES and not self._paused:
            self._paused = True
            self._socket.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._complete or self._parser is None:
            return
        if exc is None and self._started and self._ends_with_connection():
            self._complete = True
            self._wake()
        else:
            self._fail(httpx2.RemoteProtocolError("connection closed before the response was complete"))

    def _ends_with_connection(self) -> bool:
        """Whether the body has no length of its own, so that the end of the connection is its end."""
        names = {name.lower() for name, _ in self.headers}
        return not names & {b"content-length", b"transfer-encoding"}

    # httptools

    def on_message_begin(self) -> None:
        if self._complete:
            raise httpx2.RemoteProtocolError("a second response in answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:  # 100 Continue, 103 Early Hints: the response itself follows
            self.headers = []
        else:
            self._started = True
            self._keep_alive = self._parser.should_keep_alive()  # False once the message is over

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        self._complete = self._started


def _origin(url: httpx2.URL) -> Origin:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _head(request: httpx2.Request) -> tuple[bytes, bytes]:
    """Request line and headers, in two parts: the number of bytes of the body belongs between them. The second one is
    empty where no length is told."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % pair for pair in request.headers.raw]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise httpx2.LocalProtocolError("a header holds a line break")
    told = next((n for n, line in enumerate(lines) if line.lower().startswith(b"content-length: ")), None)
    if told is None:
        return head + b"\r\n\r\n", b""
    before = b"\r\n".join([*lines[:told], lines[told][: len(b"content-length: ")]])
    return before, b"\r\n".join([b"", *lines[told + 1 :], b"", b""])
