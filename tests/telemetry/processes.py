"""Ingress, console and worker as the Procfile starts them, their output kept."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from shared.config import Settings
from tests.turn.deployment import environment_of

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 90.0


@dataclass
class Fleet:
    folder: Path
    settings: Settings
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    url: str = ""

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ops", name, *arguments],
                cwd=ROOT,
                env=environment_of(self.settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        """As a platform does; what is left to report is reported."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(STOP_TIMEOUT_S)
        self.processes.clear()

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {"authorization": "Bearer sk-tenant-a", **request.pop("headers", {})}
        return httpx.request(method, self.url + path, headers=headers, timeout=90, trust_env=False, **request)


@contextlib.contextmanager
def fleet(settings: Settings, folder: Path) -> Iterator[Fleet]:
    """Ready to answer messages."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    started = Fleet(folder, settings, url=f"http://127.0.0.1:{port}")
    try:
        started.start("ingress", "--port", str(port))
        started.start("worker")
        _wait_until_healthy(started)
        yield started
    finally:
        started.stop()


def _wait_until_healthy(started: Fleet) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(httpx.TransportError):
            if started.ask("GET", "/health/stack").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(started.log("ingress") + started.log("worker"))
