"""A load generator that costs little: keep-alive connections, requests made once, answers barely looked at.

Closed loop (`saturate`): each connection sends its next request when the last one is answered. Open loop (`on_time`):
requests start when the clock says, however slow the answers are, and latency counts from that moment.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

END = b"\r\n\r\n"
LENGTH = b"content-length: "


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Connection(asyncio.Protocol):
    """One request at a time; `answered(self, answer)` when its answer is complete."""

    def __init__(self, answered: Callable[["Connection", Answer], None]) -> None:
        self._answered = answered
        self._got = b""

    def ask(self, request: bytes) -> None:
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        got = self._got + data if self._got else data
        head = got.find(END)
        if head >= 0:
            start = got.lower().index(LENGTH) + len(LENGTH)
            body = head + len(END)
            if len(got) >= body + int(got[start : got.index(b"\r", start)]):
                self._got = b""
                self._answered(self, Answer(int(got[9:12]), got[body:]))
                return
        self._got = got


def post(path: str, body: Any, key: str) -> bytes:
    content = msgspec.json.encode(body)
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def get(path: str, key: str, *, wait_s: int = 0) -> bytes:
    prefer = f"prefer: wait={wait_s}\r\n" if wait_s else ""
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n{prefer}\r\n".encode()


async def saturate(port: int, request: bytes, *, connections: int, seconds: float) -> float:
    """Requests a second that were answered 202."""
    loop = asyncio.get_running_loop()
    answers, over = 0, loop.create_future()
    began_s = time.monotonic()

    def answered(connection: Connection, answer: Answer) -> None:
        nonlocal answers
        if over.done():
            return
        if answer.status != 202:
            over.set_exception(AssertionError(f"{answer.status}: {answer.body.decode()}"))
        answers += 1
        connection.ask(request)

    opened = [await _connect(port, answered) for _ in range(connections)]
    ending = loop.call_later(seconds, over.set_result, None)
    for connection in opened:
        connection.ask(request)
    try:
        await over
    finally:
        ending.cancel()
    elapsed_s = time.monotonic() - began_s
    for connection in opened:
        connection.close()
    return answers / elapsed_s


@dataclass
class Client:
    """Any number of requests at the same time, each on an idle connection or a new one."""

    port: int
    _idle: list[Connection] = field(default_factory=list)
    _waiting: dict[Connection, "asyncio.Future[Answer]"] = field(default_factory=dict)

    async def fetch(self, request: bytes) -> Answer:
        connection = self._idle.pop() if self._idle else await _connect(self.port, self._answered)
        answer = self._waiting[connection] = asyncio.get_running_loop().create_future()
        connection.ask(request)
        found: Answer = await answer
        return found

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def _answered(self, connection: Connection, answer: Answer) -> None:
        self._idle.append(connection)
        self._waiting.pop(connection).set_result(answer)


async def on_time(once: Callable[[int], Awaitable[None]], *, per_s: float, seconds: float) -> list[float]:
    """ms from the moment each `once(number)` was to start until it was over."""
    began_s, latencies = time.monotonic() + 0.05, [0.0] * int(per_s * seconds)

    async def timed(number: int) -> None:
        due_s = began_s + number / per_s
        await asyncio.sleep(due_s - time.monotonic())
        await once(number)
        latencies[number] = (time.monotonic() - due_s) * 1000

    await asyncio.gather(*map(timed, range(len(latencies))))
    return latencies


async def _connect(port: int, answered: Callable[[Connection, Answer], None]) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port)
    return connection
