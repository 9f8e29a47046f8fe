"""The product's own processes, for tests from end to end: ingress, workers and delivery processes, killed at will."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from shared.config import Settings
from tests.conftest import _eventually
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of

READY_S = 150.0


@dataclass
class Fleet:
    environment: dict[str, str]
    port: int
    logs: Path
    caller: httpx.AsyncClient
    """Of the ingress."""
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, name: str, command: str) -> None:
        """In the place `name`."""
        with self.log(name).open("wb") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ops", command), cwd=REPOSITORY, env=self.environment, stdout=log
            )

    def log(self, name: str) -> Path:
        """Of the process that fills the place now."""
        return self.logs / f"{name}.log"

    async def kill(self, name: str) -> None:
        process = self.processes[name]
        process.kill()
        assert await process.wait() == -signal.SIGKILL, f"{name} had ended by itself"

    async def is_ready(self) -> bool:
        """The ingress serves, a worker has a lease, and every delivery process has begun."""
        couriers = [name for name in self.processes if name.startswith("delivery")]
        if not all("delivery.ready" in self.log(name).read_text() for name in couriers):
            return False
        try:
            return (await self.caller.get("/health/stack")).status_code == 200
        except httpx.TransportError:
            return False

    async def stop(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
        for name, process in self.processes.items():
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                process.kill()
                raise AssertionError(f"{name} did not end") from None


@contextlib.asynccontextmanager
async def fleet_of(settings: Settings, logs: Path, *, workers: int, couriers: int) -> AsyncIterator[Fleet]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    caller = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120)
    fleet = Fleet(environment_of(settings) | {"PORT": str(port)}, port, logs, caller)
    try:
        await fleet.start("ingress", "ingress")
        for number in range(workers):
            await fleet.start(f"worker-{number}", "worker")
        for number in range(couriers):
            await fleet.start(f"delivery-{number}", "delivery")
        await _eventually(fleet.is_ready, READY_S)
        yield fleet
    finally:
        await fleet.stop()
        await caller.aclose()
