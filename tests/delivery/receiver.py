"""A receiver of webhooks on loopback: it keeps what it is sent, and answers as a test has told it."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

REASONS = {200: "OK", 302: "Found", 410: "Gone", 429: "Too Many", 500: "Error"}


@dataclass(frozen=True)
class Post:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


@dataclass
class Receiver:
    """`answers` are used up one by one, then it is 200; `hang` holds every answer back until it is set."""

    port: int = 0
    host: str = "127.0.0.1"
    posts: list[Post] = field(default_factory=list)
    answers: deque[tuple[int, Mapping[str, str]]] = field(default_factory=deque)
    always: tuple[int, Mapping[str, str]] | None = None
    hang: asyncio.Event = field(default_factory=asyncio.Event)
    flood: bool = False
    """Answer with a body that does not end."""
    open: int = 0
    most_open: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    def url_of(self, host: int) -> str:
        return f"http://127.0.1.{host}:{self.port}/hook"

    def answer(self, *statuses: int, **headers: str) -> None:
        self.answers.extend((status, headers) for status in statuses)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            self.posts.append(await _read(reader))
            await self.hang.wait()
            await self._write(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the sender has gone away, or was killed
        finally:
            self.open -= 1
            writer.close()

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        status, headers = self.always or (self.answers.popleft() if self.answers else (200, {}))
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        length = "" if self.flood else "content-length: 4\r\n"
        writer.write(
            f"HTTP/1.1 {status} {REASONS.get(status, 'x')}\r\n{more}{length}connection: close\r\n\r\n".encode()
        )
        writer.write(b"said")
        while self.flood:
            writer.write(b"x" * 65_536)
            await writer.drain()
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Post:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Post(first.split(" ")[1], headers, body)


@asynccontextmanager
async def receiving(
    *, hangs: bool = False, tls: ssl.SSLContext | None = None, bind: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    """`bind` 0.0.0.0: at every address of loopback, each a host of its own to those who send (`url_of`)."""
    receiver = Receiver()
    if not hangs:
        receiver.hang.set()
    server = await asyncio.start_server(receiver.serve, bind, 0, ssl=tls, backlog=1_000)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.hang.set()
        receiver.flood = False
        server.close()
