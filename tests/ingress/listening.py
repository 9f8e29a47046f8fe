"""Requests as bytes, and the application behind real connections of one kind: what comes back, and what came to it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ingress import request_log
from ingress.app import MESSAGES as ROUTE
from ingress.connection import STATE
from ingress.plain import PlainMessages
from tests.ingress.harness import MESSAGES, Running

LENGTH = re.compile(rb"content-length: (\d+)")


def request(*headers: str, body: str = '{"message": "a"}', version: str = "1.1", path: str = MESSAGES) -> bytes:
    first = f"POST {path} HTTP/{version}"
    usual = "host: a", "authorization: Bearer sk-tenant-a", f"content-length: {len(body)}"
    return "\r\n".join([first, *usual, *headers, "", body]).encode()


@dataclass
class Listening:
    """A running application behind connections of one kind, in the test's own loop."""

    running: Running
    port: int
    connections: set[Any]
    through_the_app: list[str] = field(default_factory=list)
    """Paths of requests that came to the application."""

    async def ask(self, first: bytes, rest: bytes = b"") -> bytes:
        """What comes back to one request, of which `rest` is sent when `first` has been read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(first)
        while rest and not any(made.cycle is not None for made in self.connections):
            await asyncio.sleep(0)
        writer.write(rest)
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length
        answer = head + await reader.readexactly(int(length[1]))
        writer.close()
        return answer


@asynccontextmanager
async def listening(
    running: Running, kind: type[HttpToolsProtocol], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Listening]:
    config = uvicorn.Config(running.app, http=kind, lifespan="off", access_log=False, log_config=None)
    config.load()
    state, shared = ServerState(), {STATE: PlainMessages(running.ingress, ROUTE)}
    state.default_headers = [(b"date", b"Sat, 21 Nov 2026 22:00:00 GMT")]

    def connect() -> asyncio.Protocol:
        return kind(config=config, server_state=state, app_state=shared)

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    made = Listening(running, server.sockets[0].getsockname()[1], state.connections)
    usual = request_log.RequestLog.__call__

    async def seen(log: Any, scope: Any, receive: Any, send: Any) -> None:
        made.through_the_app.append(scope["path"])
        await usual(log, scope, receive, send)

    monkeypatch.setattr(request_log.RequestLog, "__call__", seen)
    async with server:
        yield made
        for task in list(state.tasks):
            await task
