"""Many callers on one connection: everybody gets their own reply, however it ends for the others."""

import asyncio
import random
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from shared.errors import Unavailable
from shared.redis import Commands, connect, link
from shared.scripts import Script
from tests.conftest import Eventually


async def test_replies_are_those_of_redis_py(commands: Commands) -> None:
    assert await commands.run("SET", "text", "ü") is True
    assert await commands.run("GET", "text") == "ü".encode()
    assert await commands.run("GET", "nothing") is None
    assert await commands.run("HSET", "hash", "a", 1, "b", 1.5) == 2
    assert await commands.run("HGETALL", "hash") == {b"a": b"1", b"b": b"1.5"}
    entry = await commands.run("XADD", "stream", "*", b"field", b"\x00\xff")
    assert await commands.run("XRANGE", "stream", "-", "+") == [(entry, {b"field": b"\x00\xff"})]
    assert (await commands.run("INFO", "memory"))["used_memory"] > 0


async def test_every_caller_gets_the_reply_to_its_own_command_whatever_its_size(commands: Commands) -> None:
    dice = random.Random(7)  # noqa: S311 - sizes, not secrets
    sizes = [dice.choice([0, 1, 10, 1_000, 65_536, 1_000_000]) for _ in range(200)]

    async def echo(number: int, size: int) -> None:
        text = f"{number}:".encode() + b"x" * size
        assert await commands.run("ECHO", text) == text

    await asyncio.gather(*(echo(*sized) for sized in enumerate(sizes)))


async def test_commands_of_one_tick_travel_together_and_the_next_ones_do_not_wait(own_commands: Commands) -> None:
    await own_commands.run("PING")
    before = own_commands.round_trips
    slow = asyncio.gather(*(own_commands.run("DEBUG", "SLEEP", 0.1) for _ in range(3)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    behind = asyncio.ensure_future(own_commands.run("PING"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert own_commands.round_trips == before + 2
    assert not slow.done()
    assert await behind
    assert await slow


async def test_ten_thousand_at_once_are_one_connection_and_few_writes(commands: Commands, redis: Redis) -> None:
    replies = await asyncio.gather(*(commands.run("ECHO", number) for number in range(10_000)))
    assert replies == [str(number).encode() for number in range(10_000)]
    assert commands.round_trips == 1
    own = [client for client in await redis.client_list() if client["cmd"] == "echo"]
    assert len(own) == 1


async def test_a_huge_reply_arrives_whole(commands: Commands) -> None:
    await commands.run("SETRANGE", "huge", 50_000_000, "x")
    small, huge = await asyncio.gather(commands.run("PING"), commands.run("GET", "huge"))
    assert small is True
    assert len(huge) == 50_000_001


async def test_a_command_that_is_wrong_fails_alone(commands: Commands) -> None:
    commanded = (("SET", "k", "v"), ("LPUSH", "k", "x"), ("NONSENSE",), ("GET", "k"))
    replies = await asyncio.gather(*(commands.run(*command) for command in commanded), return_exceptions=True)
    assert (replies[0], replies[3]) == (True, b"v")
    assert [type(reply) for reply in replies[1:3]] == [ResponseError] * 2
    assert str(replies[1]).startswith("WRONGTYPE")
    assert str(replies[2]).startswith("unknown command")


async def test_an_argument_that_cannot_be_sent_is_refused_before_it_is(commands: Commands) -> None:
    with pytest.raises(TypeError):
        await commands.run("SET", "k", None)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        await commands.run("SET", "k", "\ud800")
    assert await commands.run("PING")


async def test_a_script_the_server_does_not_know_is_sent_once_and_then_known(commands: Commands, redis: Redis) -> None:
    await redis.script_flush()
    read = Script("read")
    with pytest.raises(NoScriptError):
        await commands.run("EVALSHA", read.sha, 1, "sb:job:x", "x")
    assert await asyncio.gather(*(read(commands, ["sb:job:x"], ["x"]) for _ in range(5))) == [[[], None]] * 5
    before = commands.round_trips
    await read(commands, ["sb:job:x"], ["x"])
    assert commands.round_trips == before + 1


async def test_callers_that_go_away_leave_the_others_their_replies(commands: Commands) -> None:
    """Before it is sent, and while it is under way."""
    callers = [asyncio.ensure_future(commands.run("ECHO", number)) for number in range(100)]
    await asyncio.sleep(0)
    for caller in callers[::3]:
        caller.cancel()
    await asyncio.sleep(0)
    for caller in callers[1::3]:
        caller.cancel()
    replies = await asyncio.gather(*callers, return_exceptions=True)
    assert replies[2::3] == [str(number).encode() for number in range(100)][2::3]
    assert all(isinstance(reply, asyncio.CancelledError) for reply in replies[::3])
    assert await commands.run("ECHO", "next") == b"next"


async def test_what_does_not_fit_is_refused_at_once(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.redis.commands.MAX_UNSENT_BYTES", 100_000)
    first = asyncio.gather(*(commands.run("ECHO", b"x" * 40_000) for _ in range(3)))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await commands.run("PING")
    assert await first == [b"x" * 40_000] * 3
    assert await commands.run("PING")


async def test_a_server_that_reads_slowly_is_not_buffered_for(
    own_commands: Commands, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(link, "WRITE_BUFFER_BYTES", 1_000)
    asleep = asyncio.ensure_future(own_commands.run("DEBUG", "SLEEP", 0.2))
    await eventually(lambda: own_commands.round_trips == 1)
    many = [asyncio.ensure_future(own_commands.run("SET", f"k{n}", b"x" * 5_000_000)) for n in range(2)]
    await eventually(lambda: own_commands._link is not None and own_commands._link.full)
    many += [asyncio.ensure_future(own_commands.run("SET", f"k{n}", "x")) for n in range(2, 20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(own_commands._packed) == 18
    assert all(await asyncio.gather(asleep, *many))
    assert await own_commands.run("DBSIZE") == 20


async def test_closing_waits_for_what_is_under_way_and_refuses_what_comes_later(redis_url: str) -> None:
    commands = Commands(connect(redis_url))
    asked = [asyncio.ensure_future(commands.run("ECHO", number)) for number in range(10)]
    await asyncio.sleep(0)
    await commands.aclose()
    assert [await each for each in asked] == [str(number).encode() for number in range(10)]
    with pytest.raises(Unavailable):
        await commands.run("PING")


async def test_closing_what_was_never_used_is_fine(tmp_path: Path) -> None:
    await Commands(connect(f"unix://{tmp_path}/nobody.sock")).aclose()
