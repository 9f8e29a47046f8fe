"""A connection of one's own: it may block, it hears what the server says unasked, and its end is told."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from shared.errors import Unavailable
from shared.redis import Commands, connect, open_line

QUEUE = "line:queue"


async def test_a_blocking_command_waits_beside_others(commands: Commands) -> None:
    async with open_line(commands.redis.connection_pool, timeout_s=10) as line:
        asked = asyncio.ensure_future(line.ask(("BLPOP", QUEUE, 60)))
        await commands.run("RPUSH", QUEUE, "x")
        assert await asked == [[QUEUE.encode(), b"x"]]
        assert await line.ask(("SET", "k", 1), ("GET", "k")) == [b"OK", b"1"]


async def test_a_wrong_command_is_said_and_the_line_goes_on(commands: Commands) -> None:
    async with open_line(commands.redis.connection_pool, timeout_s=10) as line:
        with pytest.raises(ResponseError):
            await line.ask(("GET",))
        assert await line.ask(("PING",)) == [b"PONG"]


async def test_a_cancelled_question_ends_the_line(commands: Commands) -> None:
    """Else its answer would be taken for the next one's."""
    async with open_line(commands.redis.connection_pool, timeout_s=10) as line:
        asked = asyncio.ensure_future(line.ask(("BLPOP", QUEUE, 60)))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(Unavailable):
            await line.ask(("PING",))


async def test_what_the_server_says_unasked_is_heard(commands: Commands) -> None:
    heard = asyncio.Event()
    async with open_line(commands.redis.connection_pool, timeout_s=10, on_push=heard.set) as line:
        await line.ask(("CLIENT", "TRACKING", "ON"), ("GET", "watched"))
        await commands.run("SET", "watched", "1")
        await asyncio.wait_for(heard.wait(), 30)


async def test_a_line_that_is_cut_tells_its_owner_and_whoever_waits(commands: Commands) -> None:
    ended = asyncio.Event()
    async with open_line(commands.redis.connection_pool, timeout_s=10, on_end=ended.set) as line:
        (me,) = await line.ask(("CLIENT", "ID"))
        asked = asyncio.ensure_future(line.ask(("BLPOP", QUEUE, 60)))
        await commands.redis.client_kill_filter(_id=str(me))
        with pytest.raises(Unavailable):
            await asked
        assert ended.is_set()
        with pytest.raises(Unavailable):
            await line.ask(("PING",))


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    redis = connect("redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        async with open_line(redis.connection_pool, timeout_s=1):
            pytest.fail("nothing is there")
    await redis.aclose(close_connection_pool=True)
