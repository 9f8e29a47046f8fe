"""The product's own processes: workers that a platform would start again whenever they end, and one ingress.

Each process has links of its own to Redis and Postgres, so that a fault of the network can strike one of them. A
process may be borrowed by one fault at a time; exits that no fault asked for are kept, and are violations.
"""

import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ops.stack.process import Child, Program, start
from shared.config import Settings
from tests.chaos.backends import Backends
from tests.chaos.link import Link, open_link
from tests.chaos.patience import NeverCame, holds, until
from tests.turn.deployment import environment_of

ROOT = Path(__file__).parents[2]
RESPAWN_S = 0.2
READY_S = 60.0
STOP_S = 30.0
SAMPLE_S = 1.0
STARTED = ("worker.ready", "Application startup complete")
"""What a worker and the ingress say once they have all they need; one that ends before has failed to start."""
NUMBERS = re.compile(r"[0-9a-f]*\d[0-9a-f-]*|: .*")


@dataclass
class Process:
    """One place in the fleet, and the process that fills it now."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    redis: Link
    postgres: Link
    child: Child | None = None
    rss_bytes: list[int] = field(default_factory=list)
    """Memory of the present process, a sample a second."""
    lives: list[list[int]] = field(default_factory=list)
    """`rss_bytes` of those before it."""
    asked_to_exit: int | None = None
    """The exit code that a fault has asked for."""
    unasked_exits: list[str] = field(default_factory=list)
    failed_starts: int = 0
    borrowed: bool = False
    _redis_before: int | None = None
    _postgres_before: int = 0

    def spawn(self) -> None:
        self._postgres_before, self._redis_before = self.postgres.answered, None
        argv = [sys.executable, "-m", "ops", *self.command]
        self.child = start(Program(name=self.name, argv=argv, log=self.log, env=self.environment, cwd=ROOT))

    @property
    def exit_code(self) -> int | None:
        return self.child.exit_code if self.child is not None else None

    @property
    def ready(self) -> bool:
        """It has checked Postgres and then talked to Redis again: a worker that holds a lease."""
        if self.exit_code is not None:
            return False
        if self._redis_before is None and self.postgres.answered > self._postgres_before:
            self._redis_before = self.redis.answered
        return self._redis_before is not None and self.redis.answered > self._redis_before

    def signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.signal(number)

    def bury(self) -> None:
        """Takes note of how the process ended."""
        code, asked, self.asked_to_exit = self.exit_code, self.asked_to_exit, None
        self.lives.append(self.rss_bytes)
        self.rss_bytes = []
        if code == asked:
            return
        if self.has_started:
            self.unasked_exits.append(f"{self.name} ended with {code}, not {asked}\n{self.child.tail(15)}")  # type: ignore[union-attr]  # it has ended
        else:
            self.failed_starts += 1  # its servers were away: the platform tries again

    @property
    def has_started(self) -> bool:
        """It has said so."""
        said = self.child.tail(sys.maxsize) if self.child is not None else ""
        return any(words in said for words in STARTED)

    def errors_logged(self) -> Counter[str]:
        """Errors in the log of this place, by event and exception; figures and ids in the text are left out."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return Counter(_event(line) for line in lines if line["level"] in ("error", "critical"))

    def describe(self) -> str:
        """For a person who wonders what it is doing."""
        tail = self.child.tail(8) if self.child is not None else ""
        redis = f"redis answered {self.redis.answered} ({self._redis_before} at its start)"
        postgres = f"postgres {self.postgres.answered} ({self._postgres_before})"
        return f"{self.name}, exit code {self.exit_code}, {redis}, {postgres}\n{tail}"

    def sample(self) -> None:
        with contextlib.suppress(psutil.Error):
            if self.child is not None and self.ready:
                self.rss_bytes.append(psutil.Process(self.child.pid).memory_info().rss)


class Fleet:
    """Made by `open_fleet`."""

    def __init__(self, workers: list[Process], ingress: Process, port: int) -> None:
        self.workers = workers
        self.ingress = ingress
        self.port = port
        """Of the ingress."""

    @property
    def processes(self) -> list[Process]:
        return [*self.workers, self.ingress]

    def is_well(self) -> bool:
        return all(process.ready and process.has_started for process in self.processes)

    @contextlib.asynccontextmanager
    async def borrow(self, rng: random.Random, *, among: Sequence[Process] | None = None) -> AsyncIterator[Process]:
        """A process that is well, for one fault; given back once it is well again."""
        places = list(among or self.workers)
        wanted = rng.randrange(len(places))
        places = places[wanted:] + places[:wanted]

        def found() -> bool:
            return any(not place.borrowed and place.ready for place in places)

        await until(found, READY_S, "a process that is well")
        process = next(place for place in places if not place.borrowed and place.ready)
        process.borrowed = True
        try:
            yield process
            if not await holds(lambda: process.ready, READY_S):
                raise NeverCame(f"not well again within {READY_S:g} s: {process.describe()}")
        finally:
            process.borrowed = False

    async def supervise(self) -> None:
        """The platform: what has ended is started again. Until cancelled."""
        sampled_s = 0.0
        while True:
            for process in self.processes:
                if process.exit_code is not None:
                    process.bury()
                    process.spawn()
            if time.monotonic() - sampled_s > SAMPLE_S:
                sampled_s = time.monotonic()
                for process in self.processes:
                    process.sample()
            await asyncio.sleep(RESPAWN_S)

    async def stop(self) -> None:
        """An orderly end of all of them by SIGTERM. uvicorn raises it once more when it is done."""
        for process in self.processes:
            process.asked_to_exit = -signal.SIGTERM if process is self.ingress else 0
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        for process in self.processes:
            if process.child is not None:
                await asyncio.to_thread(process.child.join, STOP_S)
                process.bury()


@contextlib.asynccontextmanager
async def open_fleet(backends: Backends, settings: Settings, *, workers: int) -> AsyncIterator[Fleet]:
    """Started and ready. Every third worker has a key for Anthropic only, so that both providers are called."""
    async with contextlib.AsyncExitStack() as stack:
        places = []
        port = _free_port()
        for name in [*(f"worker-{n}" for n in range(workers)), "ingress"]:
            redis = await stack.enter_async_context(open_link(backends.reach_redis))
            postgres = await stack.enter_async_context(open_link(backends.reach_postgres))
            environment = environment_of(_settings_of(name, settings, redis, postgres))
            command = ["ingress", "--port", str(port)] if name == "ingress" else ["worker"]
            places.append(Process(name, command, environment, backends.directory.log(name), redis, postgres))
        fleet = Fleet(places[:-1], places[-1], port)
        for process in fleet.processes:
            process.spawn()
        try:
            await until(fleet.is_well, READY_S, "the fleet is ready")
            yield fleet
        finally:
            for process in fleet.processes:
                if process.child is not None and process.exit_code is None:
                    process.signal(signal.SIGKILL)
                    process.child.join(STOP_S)


def _event(line: Mapping[str, Any]) -> str:
    event = NUMBERS.sub("…", line["event"].partition("\n")[0])
    raised = line.get("exception") or []
    return f"{event} ({raised[0]['type']})" if raised else event


def _settings_of(name: str, settings: Settings, redis: Link, postgres: Link) -> Settings:
    urls = {
        "redis_url": f"redis://127.0.0.1:{redis.port}/0",
        "database_url": f"postgresql://switchboard_app@127.0.0.1:{postgres.port}/switchboard?sslmode=disable",
    }
    only_anthropic = name.startswith("worker-") and int(name.removeprefix("worker-")) % 3 == 2
    given = {field: getattr(settings, field) for field in settings.model_fields_set}
    if only_anthropic:
        del given["openai_api_key"]
    return Settings.read(given | urls)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
