"""Connections end, servers freeze, restart, fill up, change roles: who waits learns of it, and nothing runs twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
import uvloop
from redis.asyncio import Redis

from ops.stack.directory import DataDirectory
from ops.stack.valkey import Valkey, start_valkey
from shared.errors import Unavailable
from shared.redis import Commands, connect
from tests.conftest import PATIENCE_S, Eventually


async def test_a_killed_connection_fails_what_was_sent_and_the_next_command_finds_a_new_one(
    own_commands: Commands, own_valkey: Valkey, eventually: Eventually
) -> None:
    own_id = await own_commands.run("CLIENT", "ID")
    asleep = [asyncio.ensure_future(own_commands.run("BLPOP", "nothing", 0)) for _ in range(3)]
    async with Redis.from_url(own_valkey.url()) as admin:
        await eventually(lambda: blocked(admin))
        await admin.client_kill_filter(_id=str(own_id))
    replies = await asyncio.gather(*asleep, return_exceptions=True)
    assert [type(reply) for reply in replies] == [Unavailable] * 3
    assert await own_commands.run("CLIENT", "ID") != own_id


async def test_a_connection_that_ends_while_idle_fails_nobody(own_commands: Commands, own_valkey: Valkey) -> None:
    own_id = await own_commands.run("CLIENT", "ID")
    async with Redis.from_url(own_valkey.url()) as admin:
        await admin.client_kill_filter(_id=str(own_id))
    assert await own_commands.run("CLIENT", "ID") != own_id


async def test_commands_whose_answers_were_lost_are_not_sent_again(own_commands: Commands) -> None:
    own_id = await own_commands.run("CLIENT", "ID")
    unheard = [("CLIENT", "REPLY", "OFF"), *[("INCR", "runs")] * 5]  # the server works on, without a word
    replies = await asyncio.gather(*(own_commands.run(*command) for command in unheard), return_exceptions=True)
    assert [type(reply) for reply in replies] == [Unavailable] * 6
    assert await own_commands.run("GET", "runs") == b"5"
    assert await own_commands.run("CLIENT", "ID") != own_id


async def test_a_frozen_server_is_given_up_and_found_again(own_commands: Commands, own_valkey: Valkey) -> None:
    await own_commands.run("PING")
    own_valkey.child.signal(SIGSTOP)
    sent = [asyncio.ensure_future(own_commands.run("PING")) for _ in range(3)]
    huge = asyncio.ensure_future(own_commands.run("SET", "huge", b"x" * 30_000_000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    unsent = asyncio.ensure_future(own_commands.run("PING"))
    replies = await asyncio.gather(*sent, huge, return_exceptions=True)
    assert [type(reply) for reply in replies] == [Unavailable] * 4
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(unsent.exception(), Unavailable), "it has waited as long as the others"
    with pytest.raises(Unavailable):  # a new connection is accepted by the kernel, and not answered
        await own_commands.run("PING")
    own_valkey.child.signal(SIGCONT)
    assert await own_commands.run("PING")


async def test_an_answer_that_takes_its_time_is_waited_for(own_valkey: Valkey) -> None:
    commands = Commands(connect(own_valkey.url()), timeout_s=60)
    assert await commands.run("DEBUG", "SLEEP", 1)
    await commands.aclose()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_process_that_was_stopped_itself_reads_its_answers_before_it_gives_up(
    run: Callable[..., None], own_valkey: Valkey
) -> None:
    """uvloop looks at its timers first, at its sockets later."""

    async def stop_meanwhile() -> None:
        commands = Commands(connect(own_valkey.url()), timeout_s=1.0)
        await commands.run("PING")
        asked = asyncio.ensure_future(commands.run("DEBUG", "SLEEP", 0.1))
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(2.5)
        assert await asked
        await commands.aclose()

    run(stop_meanwhile())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_server_killed_and_restarted_under_load_is_used_again(
    run: Callable[..., None], private_directory: DataDirectory
) -> None:
    first = start_valkey(private_directory)
    run(_restart_under_load(first, private_directory))


async def _restart_under_load(first: Valkey, directory: DataDirectory) -> None:
    commands, over, failures, answered = Commands(connect(first.url()), timeout_s=1), asyncio.Event(), 0, 0

    async def ask() -> None:
        nonlocal failures, answered
        while not over.is_set():
            try:
                assert await commands.run("ECHO", b"x" * 2_000) == b"x" * 2_000
                answered += 1
            except Unavailable:
                failures += 1
                await asyncio.sleep(0.01)

    asking = [asyncio.ensure_future(ask()) for _ in range(50)]
    async with asyncio.timeout(4 * PATIENCE_S):
        while answered < 200:
            await asyncio.sleep(0.01)
        first.child.signal(SIGKILL)
        first.child.join(PATIENCE_S)
        while not failures:
            await asyncio.sleep(0.01)
        second = await asyncio.to_thread(start_valkey, directory, port=first.port)
        answered = 0
        while answered < 200:
            await asyncio.sleep(0.01)
    over.set()
    await asyncio.gather(*asking)
    await commands.aclose()
    second.child.stop()


async def test_a_server_that_still_loads_its_data_is_unavailable(private_directory: DataDirectory) -> None:
    first = start_valkey(private_directory, settings={"enable-debug-command": "local"})
    async with opened(first.url(), timeout_s=60) as commands:
        await commands.run("DEBUG", "POPULATE", 2_000)
        await commands.run("CONFIG", "SET", "key-load-delay", 1_500)  # µs per key
        await commands.run("CONFIG", "SET", "loading-process-events-interval-bytes", 1_024)
        reloading = asyncio.ensure_future(commands.run("DEBUG", "RELOAD"))
        async with opened(first.url()) as other:
            refused = await first_failure(other)
        assert str(refused) == "Redis cannot be reached"
        assert await reloading == b"OK"
        assert await commands.run("DBSIZE") == 2_000
    first.child.stop()


async def test_a_full_server_takes_no_writes_and_still_reads(own_commands: Commands) -> None:
    await own_commands.run("SET", "k", "v")
    await own_commands.run("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(Unavailable, match="does not take writes") as refused:
        await own_commands.run("SET", "k", "w")
    assert refused.value.retry_after_s == 5
    with pytest.raises(Unavailable, match="does not take writes"):
        await own_commands.run("EVAL", "#!lua\nreturn redis.call('SET', 'k', 'w')", 0)
    assert await own_commands.run("GET", "k") == b"v"


async def test_a_demoted_primary_is_left_for_the_new_one(own_commands: Commands, own_valkey: Valkey) -> None:
    own_id = await own_commands.run("CLIENT", "ID")
    await own_commands.run("CONFIG", "SET", "replica-serve-stale-data", "yes")
    await own_commands.run("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(Unavailable):
        await own_commands.run("SET", "k", "v")
    async with Redis.from_url(own_valkey.url()) as admin:
        await admin.execute_command("REPLICAOF", "NO", "ONE")
    assert await own_commands.run("SET", "k", "v")
    assert await own_commands.run("CLIENT", "ID") != own_id


class NotRedis(asyncio.Protocol):
    """Lets itself be opened like Redis, then speaks something else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        setup = data.count(b"SETINFO")
        self.transport.write(b"+OK\r\n" * setup or b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def test_an_answer_that_is_not_redis_ends_the_connection() -> None:
    server = await asyncio.get_running_loop().create_server(NotRedis, "127.0.0.1", 0)
    async with opened(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as commands:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await commands.run("PING")
    server.close()


async def first_failure(commands: Commands) -> Unavailable:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await commands.run("GET", "key:1")
            except Unavailable as error:
                return error


@asynccontextmanager
async def opened(url: str, **how: float) -> AsyncIterator[Commands]:
    commands = Commands(connect(url), **how)
    yield commands
    await commands.aclose()


async def blocked(admin: Redis) -> bool:
    return bool((await admin.info("clients"))["blocked_clients"])
