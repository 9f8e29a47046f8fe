"""Redis or Postgres away: 503 while it lasts, and everything goes on by itself afterwards."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from ops.stack.directory import DataDirectory
from ops.stack.postgres import Postgres
from ops.stack.valkey import Valkey, start_valkey
from shared.ids import uuid7
from shared.redis import Commands, connect
from tests.conftest import Database, Eventually
from tests.ingress.harness import MESSAGES, Gate, Served, Worker, accepted, events_of, served, settings_for, started


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[tuple[DataDirectory, Valkey]]:
    with DataDirectory(tmp_path / "v") as directory:
        server = start_valkey(directory)
        yield directory, server
        server.child.stop()


@pytest.fixture
async def gate(postgres: Postgres, with_keys: Database) -> AsyncIterator[Gate]:
    """The only way to Postgres of the ingress under test; shut at first."""
    [target] = [path for path in postgres.sockets.iterdir() if path.name.startswith(".s.PGSQL.") and path.is_socket()]
    made = Gate(str(target))
    yield made
    await made.aclose()


def through(gate: Gate, database: Database) -> str:
    return f"postgresql://switchboard_app@/{database.name}?host={gate.folder}"


def refused(response: httpx.Response) -> bool:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return int(response.headers["retry-after"]) > 0


async def test_redis_killed_and_restarted_under_callers(
    own_valkey: tuple[DataDirectory, Valkey], with_keys: Database, eventually: Eventually
) -> None:
    directory, valkey = own_valkey
    async with served(settings_for(valkey.url(), with_keys.app)) as server, server.client() as client:
        job = await accepted(client)
        worker = Worker(Commands(connect(valkey.url())))
        await worker.claim()
        async with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
            stream = events_of(response)
            assert (await anext(event async for event in stream if event.type != ":")).type == "job.started"
            polling = asyncio.create_task(client.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=60"}))
            await eventually(lambda: len(_watches(server)) == 2)

            await _sync(valkey)
            valkey.child.process.kill()
            valkey.child.process.wait()
            assert refused(await client.post(MESSAGES, json={"message": "x"}))
            assert refused(await client.delete(f"/v1/jobs/{job['id']}"))
            assert (await client.get("/health/live")).status_code == 200
            assert (await client.get("/health/ready")).json()["parts"]["redis"] != "ok"
            assert [(await anext(stream)).type for _ in range(5)] == [":"] * 5  # silent, but not broken

            again = start_valkey(directory, port=valkey.port)
            try:
                await worker.end(job["id"], reply="survived")
                assert (await anext(event async for event in stream if event.type != ":")).data["reply"] == "survived"
                assert (await polling).json()["reply"] == "survived"
                await accepted(client)
                assert (await client.get("/health/ready")).status_code == 200
            finally:
                await worker.commands.aclose()
                again.child.stop()


async def test_ingress_starts_and_serves_known_keys_without_postgres(
    redis_url: str, with_keys: Database, gate: Gate, eventually: Eventually
) -> None:
    async with started(settings_for(redis_url, through(gate, with_keys))) as running, running.client() as client:
        assert refused(await client.post(MESSAGES, json={"message": "x"}))  # nobody knows this key yet
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get("/health/stack")).json()["parts"]["postgres"] != "ok"

        await gate.open()

        async def works() -> bool:
            return (await client.post(MESSAGES, json={"message": "x"})).status_code == 202

        await eventually(works)


async def test_messages_are_accepted_while_postgres_is_away(
    redis_url: str, with_keys: Database, gate: Gate, eventually: Eventually
) -> None:
    await gate.open()
    fast = settings_for(redis_url, through(gate, with_keys), key_cache_ttl_s=0.0001)
    async with started(fast) as running, running.client() as client, running.client("sk-tenant-b") as other:
        job = await accepted(client)
        await gate.shut()
        for _ in range(5):
            await accepted(client)  # each one after the key's time to live
        assert (await client.get(f"/v1/jobs/{job['id']}")).status_code == 200
        assert refused(await client.get(f"/v1/jobs/{uuid7()}"))  # only Postgres could say that it never was
        assert refused(await other.get("/v1/agents"))

        await gate.open()

        async def told() -> bool:
            return (await client.get(f"/v1/jobs/{uuid7()}")).status_code == 404

        await eventually(told)
        assert (await other.get("/v1/agents")).status_code == 200


async def test_start_without_redis_is_one_clear_line(with_keys: Database) -> None:
    with pytest.raises(Exception, match="Redis cannot be reached"):
        async with started(settings_for("redis://127.0.0.1:1/0", with_keys.app)):
            pass


def _watches(server: Served) -> list[object]:
    channels = server.app.state.ingress.notices._channels.values()
    return [watch for channel in channels for watch in channel.watches]


async def _sync(valkey: Valkey) -> None:
    """What was accepted so far is on disk (`everysec` would lose up to a second of it)."""
    async with Redis.from_url(valkey.url()) as redis:
        await redis.execute_command("WAITAOF", 1, 0, 5000)
