"""When a connection that says nothing is closed: by a clock of the test's own, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from ingress.connection import Connection
from ops.serve import KEEP_ALIVE_S
from tests.conftest import Eventually

REQUEST = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


@dataclass
class Timer:
    due_s: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    """The running loop, but for the time and what waits for it."""

    now_s: float = 1_000.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(timer := Timer(self.now_s + delay_s, call))
        return timer

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def go_on(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in [timer for timer in self.waiting if timer.due_s <= self.now_s]:
            self.timers.remove(timer)
            timer.call()


@dataclass
class Caller:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    clock: Clock
    open_ones: set[Any]
    answering: asyncio.Event

    async def ask(self) -> None:
        self.writer.write(REQUEST)
        await self.answered()

    async def answered(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await self.reader.readexactly(2)

    async def closed(self) -> bool:
        """By the server, which says nothing more."""
        return await self.reader.read() == b""


@asynccontextmanager
async def calling() -> AsyncIterator[Caller]:
    answering = asyncio.Event()
    answering.set()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answering.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_keep_alive=KEEP_ALIVE_S)
    config.load()
    state, clock = ServerState(), Clock()

    def connect() -> asyncio.Protocol:
        loop: Any = clock
        return Connection(config=config, server_state=state, app_state={}, _loop=loop)

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        yield Caller(reader, writer, clock, state.connections, answering)
        writer.close()


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with calling() as made:
        yield made


async def test_a_pause_is_counted_from_the_last_answer(caller: Caller) -> None:
    await caller.ask()
    caller.clock.go_on(KEEP_ALIVE_S - 1)
    await caller.ask()
    caller.clock.go_on(1)  # the first answer's time is over
    await caller.ask()
    caller.clock.go_on(KEEP_ALIVE_S - 1)
    assert len(caller.open_ones) == 1
    caller.clock.go_on(1)
    assert await caller.closed()


async def test_many_answers_set_one_timer(caller: Caller) -> None:
    for _ in range(5):
        await caller.ask()
    assert len(caller.clock.timers) == 1


async def test_who_waits_for_an_answer_is_not_cut_off(caller: Caller, eventually: Eventually) -> None:
    await caller.ask()
    caller.answering.clear()
    caller.writer.write(REQUEST)
    await eventually(lambda: any(not each.cycle.response_complete for each in caller.open_ones))
    caller.clock.go_on(10 * KEEP_ALIVE_S)
    caller.answering.set()
    await caller.answered()
    caller.clock.go_on(KEEP_ALIVE_S)
    assert await caller.closed()


async def test_a_request_half_sent_is_waited_for(caller: Caller, eventually: Eventually) -> None:
    await caller.ask()
    (connection,) = caller.open_ones
    caller.writer.write(REQUEST[:9])
    await eventually(lambda: connection._idle_since_s is None)
    caller.clock.go_on(10 * KEEP_ALIVE_S)
    caller.writer.write(REQUEST[9:])
    await caller.answered()


async def test_a_lost_connection_leaves_no_timer(caller: Caller, eventually: Eventually) -> None:
    await caller.ask()
    caller.writer.transport.abort()
    await eventually(lambda: not caller.open_ones)
    assert caller.clock.waiting == []
