"""The bench itself: one Valkey for the whole run, worker processes on demand, and the clock they share.

Worker processes and driver read the same monotonic clock of the machine, so times may be compared between them.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from signal import SIGKILL
from typing import Any

import msgspec
import psutil
from redis.asyncio import Redis

from benchmarks.scale import Scale
from benchmarks.subject import Subject, WorkerSpec
from ops.stack.directory import DataDirectory
from ops.stack.process import Child, Program, StackError, start
from ops.stack.valkey import Valkey

POLL_S = 0.004


async def until(condition: Callable[[], bool], timeout_s: float = 300.0) -> None:
    """Returns when `condition()`; raises StackError when that takes longer than `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"nothing happened for {timeout_s:.0f} s")
        await asyncio.sleep(POLL_S)


@dataclass(frozen=True)
class Left:
    """What a worker process has done when it leaves, counted from its first job's first line."""

    jobs: int
    sends: int
    cpu_ns: int


@dataclass
class WorkerProcess:
    """A worker process and its journal so far."""

    child: Child
    lines: list[list[str]] = field(default_factory=list)

    def said(self, event: str) -> list[list[str]]:
        return [words for words in list(self.lines) if words[0] == event]  # a thread of ours appends to it

    async def says(self, event: str, count: int = 1, timeout_s: float = 300.0) -> list[list[str]]:
        """The lines of `event`, once there are `count` of them."""

        def enough() -> bool:
            if self.child.exit_code is not None and event != "left":
                raise StackError("the worker ended")
            return len(self.said(event)) >= count

        try:
            await until(enough, timeout_s)
        except StackError as error:
            raise StackError(f"waiting for {event!r}: {error}\n{self.child.tail()}") from None
        return self.said(event)

    def cpu_s(self) -> float:
        times = psutil.Process(self.child.pid).cpu_times()
        return float(times.user + times.system)

    def memory_bytes(self) -> int:
        return int(psutil.Process(self.child.pid).memory_info().rss)

    async def leave(self) -> "Left":
        """Ends it in order."""
        self.child.signal(self.child.program.stop_signal)
        (left,) = await self.says("left", timeout_s=120.0)
        return Left(*(int(word) for word in left[1:]))


@dataclass(frozen=True)
class Rig:
    directory: DataDirectory
    valkey: Valkey
    redis: Redis
    scale: Scale

    def spec(self, subject: Subject, **options: Any) -> WorkerSpec:
        return WorkerSpec(subject=subject, url=self.valkey.url(), **options)

    async def clear(self) -> None:
        """Nothing of the measurement before is left."""
        await self.redis.flushall()

    @contextmanager
    def start(self, spec: WorkerSpec) -> Iterator[WorkerProcess]:
        """A starting worker process, killed at the end unless it has left."""
        lines: list[list[str]] = []
        program = Program(
            name="worker",
            argv=[sys.executable, "-m", "benchmarks.worker", msgspec.json.encode(spec).decode()],
            log=self.directory.log("worker"),
        )
        child = start(program, on_line=lambda _name, line: lines.append(line.split()))
        try:
            yield WorkerProcess(child, lines)
        finally:
            child.signal(SIGKILL)
            child.join(10.0)

    @asynccontextmanager
    async def worker(self, spec: WorkerSpec) -> AsyncIterator[WorkerProcess]:
        """A worker process that is ready for jobs."""
        with self.start(spec) as worker:
            await worker.says("ready")
            yield worker

    async def queued(self) -> int:
        """Jobs waiting or running in the queue; 0 only when every job has ended, whatever its conversation."""
        return int(await self.redis.zcard("arq:queue"))

    async def drained(self, timeout_s: float = 600.0) -> int:
        """Waits for the last job's end; the clock then, in ns."""
        deadline = time.monotonic() + timeout_s
        while await self.queued():
            if time.monotonic() > deadline:
                raise StackError(f"jobs are left after {timeout_s:.0f} s")
            await asyncio.sleep(POLL_S)
        return time.monotonic_ns()

    async def server_cpu_s(self) -> float:
        info = await self.redis.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def server_commands(self) -> int:
        """Commands the server has executed, those inside scripts included, the driver's own left out."""
        stats: dict[str, dict[str, int]] = await self.redis.info("commandstats")
        own = {"cmdstat_zcard", "cmdstat_info"}
        return sum(stat["calls"] for name, stat in stats.items() if name not in own)
