"""The proxy of the chaos run: what each of its faults does to a connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.chaos.link import Link, Streams, open_link
from tests.chaos.patience import until


class Echo:
    """A server that answers with what it was sent, and knows what it got."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100):
                self.heard += data
                writer.write(data)
        writer.transport.abort()


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def link(echo: Echo) -> AsyncIterator[Link]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with open_link(lambda: asyncio.open_connection("127.0.0.1", port)) as opened:
        yield opened
    server.close()


@contextlib.asynccontextmanager
async def connected(link: Link) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def broken(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


async def test_a_link_carries_both_ways_and_counts_what_was_answered(link: Link) -> None:
    async with connected(link) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    assert link.answered == 5


async def test_a_cut_breaks_open_connections_and_lets_new_ones_through(link: Link) -> None:
    async with connected(link) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        link.cut()
        assert await broken(reader)
    async with connected(link) as (reader, writer):
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"


async def test_a_stall_holds_everything_back_and_delivers_it_afterwards(link: Link, echo: Echo) -> None:
    async with connected(link) as (reader, writer):
        with link.stalled():
            writer.write(b"late")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(4), 0.1)
            assert echo.heard == b""
        assert await reader.readexactly(4) == b"late"


async def test_swallowed_answers_were_asked_for_and_the_connection_breaks(link: Link, echo: Echo) -> None:
    async with connected(link) as (reader, writer):
        with link.swallowing():
            writer.write(b"done")
            await until(lambda: link.swallowed == 4, 5, "the answer is lost")
        assert await broken(reader)
    assert echo.heard == b"done"


async def test_a_server_that_is_away_is_a_broken_connection() -> None:
    async def refused() -> Streams:
        raise ConnectionRefusedError

    async with open_link(refused) as link, connected(link) as (reader, _writer):
        assert await broken(reader)
