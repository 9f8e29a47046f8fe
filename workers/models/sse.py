"""Read a model's stream: bytes to server-sent events, under one deadline for the whole call.

Used by the provider adapters in place of the SDKs' own readers, which build a pydantic object per token. Only what
both providers send is understood: `data` lines. Each event names its type in its JSON, so `event:` lines (which some
compatible servers leave out) are not needed.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from typing import cast

import httpx2

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

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that is now complete; several `data` lines are joined by a line feed."""
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
                yield b"\n".join(self._data)
                self._data.clear()


async def read(request: Awaitable[httpx2.Response], *, timeout_s: float) -> AsyncGenerator[bytes, None]:
    """Send `request` and yield the data of each event. Raises TimeoutError when the whole takes longer.

    The time between two events that the consumer spends counts too, but is never interrupted. Closing this iterator
    closes the response, and with it the connection unless the body was read to its end.
    """
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    async with asyncio.timeout_at(deadline_s):
        response = await request
    decoder = Decoder()
    try:
        plain = "content-encoding" not in response.headers
        pieces = aiter(cast("AsyncIterable[bytes]", response.stream) if plain else response.aiter_bytes())
        while True:
            async with asyncio.timeout_at(deadline_s):
                piece = await anext(pieces, None)
            if piece is None:
                return
            for data in decoder.feed(piece):
                yield data
    finally:
        await response.aclose()


async def drain(events: AsyncIterator[bytes]) -> None:
    """Read to the end of the body after the last event that matters; whatever goes wrong no longer does."""
    with suppress(TimeoutError, httpx2.HTTPError, StreamTooLarge):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in events:
                pass
