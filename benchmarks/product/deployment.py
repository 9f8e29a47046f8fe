"""Servers and processes under measurement, and what each of them has used so far."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg
import psutil
import redis

from benchmarks.rig import Rig
from ops.stack.environment import DEVELOPMENT_KEY
from ops.stack.postgres import Postgres, start_postgres
from ops.stack.process import Child, Program, start
from ops.stack.schema import apply_migrations, seed_development_key
from shared import keys

MODEL_MS = 50
START_TIMEOUT_S = 180.0
FIRST_CORE, SECOND_CORE = [0], [1]


@dataclass(frozen=True)
class Deployment:
    rig: Rig
    postgres: Postgres
    books: asyncpg.Connection
    """As superuser: sees everything, counts nothing of its own in another database."""
    model: Child
    model_port: int
    key: str = DEVELOPMENT_KEY

    def ingress(self, port: int, **variables: str) -> "Process":
        given = {"PORT": str(port), **variables}
        return self._process("ingress", ["-m", "ops", "ingress"], given, partial(_serves, port))

    def worker(self, number: int) -> "Process":
        ports = {"SWITCHBOARD_METRICS_PORT": str(free_port())}

        def leased(_log: Path) -> bool:
            with redis.Redis.from_url(self.rig.valkey.url()) as client:
                return int(client.zcard(keys.leases("default"))) > number

        return self._process(f"worker-{number}", ["-m", "ops", "worker"], ports, leased)

    def delivery(self) -> "Process":
        variables = {
            "SWITCHBOARD_OPS_DATABASE_URL": self.postgres.dsn("switchboard_ops"),
            "SWITCHBOARD_DELIVERY_ALLOW_PRIVATE": "true",
            "SWITCHBOARD_METRICS_PORT": str(free_port()),
        }
        return self._process(
            "delivery", ["-m", "ops", "delivery"], variables, lambda log: b"delivery.ready" in log.read_bytes()
        )

    def peer(self, part: str, port: int = 0) -> "Process":
        argv = ["-m", "benchmarks.product.peers", part]
        if part == "worker":
            return self._process(f"stock-{part}", argv, {}, lambda log: True)
        return self._process(f"peer-{part}", argv, {"PORT": str(port)}, partial(_serves, port))

    def _process(
        self, name: str, argv: Sequence[str], variables: Mapping[str, str], ready: Callable[[Path], bool]
    ) -> "Process":
        environment = {
            **os.environ,  # noqa: TID251 - handed on to the children as it is, not read
            "REDIS_URL": self.rig.valkey.url(),
            "DATABASE_URL": self.postgres.dsn(),
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.model_port}/v1",
            "SWITCHBOARD_SECRET": "benchmarks are no secret, but this is long enough",
            "SWITCHBOARD_LOG_FORMAT": "json",
            "SWITCHBOARD_CACHE_TTL_S": "0",  # its messages are all the same, and every turn must ask the model
            **variables,
        }
        program = Program(name=name, argv=[sys.executable, *argv], log=self.rig.directory.log(name), env=environment)
        return Process(program, ready)

    async def clear(self) -> None:
        """Nothing of the measurement before is left in Redis; scripts and keys are known again soon."""
        await self.rig.redis.flushall()

    async def transactions(self) -> int:
        """Committed in the product's database so far: each one is one round trip of a process."""
        await self.books.execute("SELECT pg_stat_force_next_flush()")
        found: int = await self.books.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = 'switchboard'")
        return found


@dataclass(frozen=True)
class Process:
    """A program to run, and how one sees that it is ready."""

    program: Program
    ready: Callable[[Path], bool]

    @asynccontextmanager
    async def running(self, cores: Sequence[int] = ()) -> AsyncIterator[Child]:
        """On `cores` only, when some are named and the system can do that."""
        self.program.log.write_bytes(b"")
        child = start(self.program)
        try:
            pin(child.pid, cores)
            await asyncio.to_thread(child.wait_until, lambda: self.ready(self.program.log), START_TIMEOUT_S)
            yield child
        finally:
            await asyncio.to_thread(child.stop)


@asynccontextmanager
async def open_deployment(rig: Rig) -> AsyncIterator[Deployment]:
    """PostgreSQL, migrated, with the development key; the model server."""
    postgres = await asyncio.to_thread(start_postgres, rig.directory)
    async with AsyncExitStack() as stack:
        stack.callback(postgres.stop)
        owner = postgres.dsn("switchboard_owner")
        await asyncio.to_thread(apply_migrations, owner)
        await asyncio.to_thread(seed_development_key, owner)
        books = await asyncpg.connect(postgres.dsn("postgres", "postgres"))
        stack.push_async_callback(books.close)
        port = free_port()
        argv = [sys.executable, "-m", "benchmarks.product.model", str(port), str(MODEL_MS)]
        program = Program(name="model", argv=argv, log=rig.directory.log("model"))
        model = await stack.enter_async_context(Process(program, partial(_serves, port)).running())
        yield Deployment(rig, postgres, books, model, port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serves(port: int, _log: Path) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pin(pid: int, cores: Sequence[int]) -> None:
    if cores and (os.cpu_count() or 1) > 1 and hasattr(psutil.Process, "cpu_affinity"):
        for thread in psutil.Process(pid).threads():
            psutil.Process(thread.id).cpu_affinity(list(cores))


@contextmanager
def generator_and_valkey_on(rig: Rig, cores: Sequence[int]) -> Iterator[None]:
    """Keeps them off the core of what is measured."""
    everywhere = list(range(os.cpu_count() or 1))
    for pid in (os.getpid(), rig.valkey.child.pid):
        pin(pid, cores)
    try:
        yield
    finally:
        for pid in (os.getpid(), rig.valkey.child.pid):
            pin(pid, everywhere)


def cpu_s(children: Iterable[Child]) -> float:
    """User and system time of these processes and of theirs (PostgreSQL's backends), those that ended excluded."""
    total = 0.0
    for child in children:
        process = psutil.Process(child.pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
    return total
