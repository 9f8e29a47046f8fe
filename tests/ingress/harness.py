"""What the tests of the ingress are made of: the application, in this loop or in a real server, and a worker's hands.

There is no worker here: `Worker` drives jobs to their ends with the scripts a worker calls.
"""

import asyncio
import hashlib
import json
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette

from ingress.app import create_app
from ingress.connection import Connection
from ingress.state import Ingress
from shared import keys
from shared.config import Settings
from shared.redis import Commands
from shared.scripts import Script
from sql import queries
from tests.conftest import Database
from tests.sql.shapes import a_turn

KEYS = {
    "sk-tenant-a": ("a", ["chat"]),
    "sk-tenant-b": ("b", ["chat"]),
    "sk-admin-of-a": ("a", ["admin"]),
}
SECRET = "a secret of tests, long enough"


@dataclass
class Running:
    """An application whose lifespan has started, and clients for it."""

    app: Starlette
    settings: Settings

    @property
    def ingress(self) -> Ingress:
        ingress: Ingress = self.app.state.ingress
        return ingress

    def client(self, key: str | None = "sk-tenant-a") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(transport=transport, base_url="http://ingress", headers=headers)


def settings_for(redis_url: str, database_url: str, **overrides: Any) -> Settings:
    values = {"redis_url": redis_url, "database_url": database_url, "secret": SECRET, "sse_keepalive_s": 0.2}
    aliases = {"redis_url": "REDIS_URL", "database_url": "DATABASE_URL"}
    return Settings.read({aliases.get(name, name): value for name, value in {**values, **overrides}.items()})


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Running]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield Running(app, settings)


@dataclass
class Worker:
    """Claims and ends jobs of one queue as a worker does."""

    commands: Commands
    queue: str = "default"
    name: str = "tests"
    claims: dict[str, str] = field(default_factory=dict)

    @property
    def _keys(self) -> list[str]:
        return [keys.queue(self.queue)]

    async def join(self, lease_ms: int = 60_000) -> None:
        await Script("beat")(self.commands, self._keys, [self.name, lease_ms, "join", 100])

    async def leave(self) -> None:
        await Script("beat")(self.commands, self._keys, [self.name, 0, "leave"])

    async def claim(self, n: int = 100) -> list[str]:
        await self.join()
        argv: list[Any] = [self.name, n, 60_000, 2_000, 3_600]
        _next_ms, _ended, _held, claim, *jobs = await Script("claim")(self.commands, self._keys, argv)
        taken = {job[0].decode(): claim.decode() for job in jobs}
        self.claims.update(taken)
        return list(taken)

    async def say(self, job_id: str, *pieces: str, max_events: int = 2_000) -> None:
        argv: list[Any] = [self.name, max_events]
        for piece in pieces:
            argv += [job_id, self.claims[job_id], "message.delta", json.dumps({"delta": piece})]
        assert await Script("emit")(self.commands, self._keys, argv) == []

    async def end(self, job_id: str, state: str = "succeeded", reply: str | None = "done") -> None:
        fields: list[Any] = ["state", state, "finished_us", 2_000_000_000_000_000]
        if reply is not None:
            fields += ["reply", reply]
        claim = self.claims.pop(job_id)
        argv: list[Any] = [self.name, 2_000, 3_600, 0, 60_000]
        argv += [job_id, claim, "end", 0, -1, 0, "", 0, "", len(fields) // 2, *fields]
        verdicts, _claimed = await Script("finish")(self.commands, self._keys, argv)
        assert verdicts == [b"OK"]


class Ageing:
    """What the ingress knows of keys and channels gets older when a test says so, in its memory and in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._now_s = 1_000_000.0

    def monotonic(self) -> float:
        return self._now_s

    async def go_by(self, seconds: float) -> None:
        self._now_s += seconds
        for name in [*await self._redis.keys("sb:apikey:*"), *await self._redis.keys("sb:channel:*")]:
            await self._redis.pexpire(name, await self._redis.pttl(name) - int(seconds * 1000))


@dataclass
class Served:
    """The application in a real server of its own thread."""

    url: str
    app: Starlette
    settings: Settings

    def client(self, key: str | None = "sk-tenant-a", **options: Any) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120, **options)


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[Served]:
    """uvicorn on a free port, started and stopped off this loop."""
    app = create_app(settings)
    server, sockets = _server(app)
    with _in_thread(server, sockets):
        while not server.started:
            await asyncio.sleep(0.01)
        yield Served(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", app, settings)


def _server(app: Starlette) -> tuple[uvicorn.Server, list[socket.socket]]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, loop="uvloop", http=Connection, access_log=False, log_config=None, timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config), [listening]


@contextmanager
def _in_thread(server: uvicorn.Server, sockets: list[socket.socket]) -> Iterator[None]:
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive()


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


MESSAGES = "/v1/agents/support/messages"


async def accepted(client: httpx.AsyncClient, text: str = "hello", **body: Any) -> dict[str, Any]:
    """The resource of a message that was accepted just now."""
    response = await client.post(MESSAGES, json={"message": text, **body})
    assert response.status_code == 202, response.text
    resource: dict[str, Any] = response.json()
    return resource


@dataclass(frozen=True)
class Sent:
    """One server-sent event as a client sees it; comments are events of type `:`."""

    type: str
    data: Any = None
    id: str | None = None


async def events_of(response: httpx.Response) -> AsyncIterator[Sent]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield Sent(":")
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Sent(fields["event"], json.loads(fields["data"]), fields.get("id"))
            fields = {}


async def all_events(client: httpx.AsyncClient, url: str, **headers: str) -> list[Sent]:
    """Everything up to the end of the stream, without comments."""
    async with client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return [event async for event in events_of(response) if event.type != ":"]


async def commit_job(database: Database, tenant: str, job_id: str, *, reply: str) -> None:
    """A succeeded job as a worker leaves it in Postgres."""
    connection = await asyncpg.connect(database.app)
    turn = a_turn(job_id=job_id, conversation_id=job_id, user_id=None, reply=reply)
    await connection.fetchrow(queries["commit_turn"], tenant, json.dumps(turn))
    await connection.close()


class Gate:
    """A way to a server that can be shut and opened: connections through it die with it."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._folder = tempfile.TemporaryDirectory(prefix="gate-")
        self._name = Path(target).name
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def folder(self) -> str:
        return self._folder.name

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._carry, str(Path(self.folder) / self._name))

    async def shut(self) -> None:
        if self._server:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            (Path(self.folder) / self._name).unlink(missing_ok=True)
            self._server = None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, there}
        try:
            await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))
        finally:
            self._writers -= {writer, there}

    async def aclose(self) -> None:
        await self.shut()
        self._folder.cleanup()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            sink.write(data)
    sink.close()
