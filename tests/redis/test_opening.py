"""A connection is opened as redis-py would: the same URLs, accounts, sockets and certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis

from ops.stack.directory import DataDirectory
from ops.stack.valkey import Valkey, start_valkey
from shared.errors import Unavailable
from shared.redis import Commands, connect

TLS = Path(__file__).parents[1] / "models" / "tls"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Commands]:
    commands = Commands(connect(url), timeout_s=20)
    try:
        yield commands
    finally:
        await commands.aclose()


async def test_the_database_of_the_url_is_selected(redis_url: str, redis: Redis) -> None:
    await redis.set("here", 1)
    async with opened(redis_url) as commands:
        assert await commands.run("GET", "here") == b"1"


async def test_user_and_password_of_the_url_are_used(own_valkey: Valkey) -> None:
    address = own_valkey.url().removeprefix("redis://")
    async with opened(own_valkey.url()) as commands:
        await commands.run("ACL", "SETUSER", "guest", "on", ">secret", "~*", "+@all")
        await commands.run("CONFIG", "SET", "requirepass", "word")
    for account, who in (("guest:secret", b"guest"), (":word", b"default")):
        async with opened(f"redis://{account}@{address}") as commands:
            assert await commands.run("ACL", "WHOAMI") == who
    for account in ("guest:wrong@", ""):
        async with opened(f"redis://{account}{address}") as commands:
            with pytest.raises(Exception, match=r"cannot be reached|NOAUTH"):
                await commands.run("PING")


async def test_options_of_the_url_are_kept(redis_url: str) -> None:
    async with opened(f"{redis_url}?client_name=somebody&protocol=3") as commands:
        assert await commands.run("CLIENT", "GETNAME") == b"somebody"
        await commands.run("HSET", "hash", "a", "b")
        assert await commands.run("HGETALL", "hash") == {b"a": b"b"}


async def test_a_unix_socket_serves_as_well(private_directory: DataDirectory) -> None:
    socket = private_directory.subdirectory("valkey") / "v.sock"
    server = start_valkey(private_directory, settings={"unixsocket": str(socket), "unixsocketperm": "777"})
    async with opened(f"unix://{socket}?db=3") as commands:
        assert await commands.run("SET", "k", "v")
        assert await commands.run("GET", "k") == b"v"
    server.child.stop()


async def test_nobody_there_is_unavailable_for_everyone_who_waits(tmp_path: Path) -> None:
    async with opened(f"unix://{tmp_path}/nobody.sock") as commands:
        replies = await asyncio.gather(*(commands.run("PING") for _ in range(10)), return_exceptions=True)
    assert [type(reply) for reply in replies] == [Unavailable] * 10
    assert len(set(map(id, replies))) == 10, "one exception in ten tracebacks"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_tls_is_spoken_with_a_server_that_is_trusted(run: Callable[..., None], valkey: Valkey) -> None:
    async def talk() -> None:
        async with (
            behind_tls(valkey) as address,
            opened(f"rediss://{address}/0?ssl_ca_certs={TLS}/cert.pem") as commands,
        ):
            echoes = await asyncio.gather(*(commands.run("ECHO", b"x" * size) for size in range(0, 100_000, 5_000)))
            assert [len(echo) for echo in echoes] == list(range(0, 100_000, 5_000))

    run(talk())


async def test_a_server_that_is_not_trusted_is_unavailable(valkey: Valkey) -> None:
    async with behind_tls(valkey) as address, opened(f"rediss://{address}/0") as commands:
        with pytest.raises(Unavailable):
            await commands.run("PING")


@asynccontextmanager
async def behind_tls(valkey: Valkey) -> AsyncIterator[str]:
    """The address of a door to `valkey` that speaks TLS: the embedded server itself is built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    halves: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        for half in (pipe(reader, inner_writer), pipe(inner_reader, writer)):
            halves.add(asyncio.ensure_future(half))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    if halves:
        await asyncio.wait(halves)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
