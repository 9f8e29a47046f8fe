"""Read a model's stream: bytes to server-sent events, under one deadline for the whole call.

Used by the provider adapters in place of the SDKs' own readers, which build a pydantic object per token. Only what
both providers send is understood: `data` lines. Each event names its type in its JSON, so `event:` lines (which some
compatible servers leave out) are not needed.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self, cast

import httpx2

from workers.models.endpoint import Incoming

_MAX_EVENT_BYTES = 4 * 1024 * 1024
_DRAIN_S = 0.2
"""How long to wait for the end of a body after its last event, so that the connection can be used again."""


class StreamTooLarge(ValueError):
    """One event without end: not something a model sends."""


class Decoder:
    """Incremental. Lines end with LF, CR LF or CR (a CR at the end of a piece waits for what follows)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of each event that is now complete; several `data` lines are joined by a line feed."""
        found: list[bytes] = []
        piece = self._rest + piece
        if b"\r" in piece:
            held = b"\r" if piece.endswith(b"\r") else b""
            piece = piece.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *lines, self._rest = piece.split(b"\n")
        if len(self._rest) > _MAX_EVENT_BYTES:
            raise StreamTooLarge(f"an event exceeds {_MAX_EVENT_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data.clear()
        return found


class Events:
    """What one request is answered with: iterate over lists of events' data, each of all that arrived together.

    Raises TimeoutError when the whole takes longer than `timeout_s`. What the consumer does between two lists counts
    too, but is never interrupted. `async with` closes the response at its end, and with it the connection unless the
    body was read to its end.
    """

    def __init__(self, request: Awaitable[Incoming], *, timeout_s: float) -> None:
        self._request = request
        self._decoder, self._reading = Decoder(), _Deadline(timeout_s)
        self._response: Incoming | None = None
        self._pieces: AsyncIterator[bytes]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self._reading.close()
        if self._response is not None:
            await self._response.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        if self._response is None:
            with self._reading:
                response = self._response = await self._request
            plain = "content-encoding" not in response.headers
            self._pieces = aiter(cast("AsyncIterable[bytes]", response.stream) if plain else response.aiter_bytes())
        while True:
            with self._reading:
                piece = await anext(self._pieces)
            if found := self._decoder.feed(piece):
                return found

    async def drain(self) -> None:
        """Read to the end of the body after the last event that matters; whatever goes wrong no longer does."""
        deadline = _Deadline(_DRAIN_S)
        try:
            with deadline:
                async for _ in self._pieces:
                    pass
        except (TimeoutError, httpx2.HTTPError):
            return  # the connection is closed instead
        finally:
            deadline.close()


def said(datas: Iterable[bytes], add: Callable[[bytes], str]) -> tuple[str, Exception | None]:
    """The text of events that arrived together, up to the first one that cannot be added, and why that cannot."""
    texts: list[str] = []
    try:
        for data in datas:
            texts.append(add(data))
    except Exception as error:  # noqa: BLE001 - raised by the caller, once the text before it was shown
        return "".join(texts), error
    return "".join(texts), None


class _Deadline:
    """`asyncio.timeout` for several waits of one task, with one timer; what the task does in between is let alone."""

    def __init__(self, timeout_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._pass)
        self._passed = self._struck = False
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def __enter__(self) -> None:
        if self._passed:
            raise TimeoutError
        self._waiting = asyncio.current_task()
        self._cancelling = self._waiting.cancelling() if self._waiting else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        task, self._waiting = self._waiting, None
        if self._struck and task is not None:
            self._struck = False
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _pass(self) -> None:
        self._passed = True
        if self._waiting is not None:
            self._struck = True
            self._waiting.cancel()

    def close(self) -> None:
        self._timer.cancel()
