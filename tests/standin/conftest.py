"""One stand-in process of these tests' own, the real SDKs pointed at it, and a hand on its control endpoints."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

TIMEOUT_S = 60


class Control:
    """The control endpoints, as a test wants them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=TIMEOUT_S)

    def behave(self, *rules: dict[str, Any]) -> None:
        self.http.post("/_behaviour", json=list(rules)).raise_for_status()

    def served(self) -> dict[str, Any]:
        response = self.http.get("/_served")
        response.raise_for_status()
        books: dict[str, Any] = response.json()
        return books

    def entries(self, **wanted: Any) -> list[dict[str, Any]]:
        """Booked requests whose fields have these values."""
        return [entry for entry in self.served()["requests"] if wanted.items() <= entry.items()]

    def reset(self) -> None:
        for path in ("/_behaviour", "/_served"):
            self.http.delete(path).raise_for_status()


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ops.standin", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def announced_url(process: subprocess.Popen[str]) -> str:
    """Waits for the one line on stdout: the process accepts connections once it is there."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("stand-in models on http://127.0.0.1:"), line
    return line.removeprefix("stand-in models on ").strip()


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
    """(exit status, everything written to stderr) of a process asked to stop."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, errors


@pytest.fixture(scope="session")
def server() -> Iterator[Control]:
    process = start("--port", "0")
    control = Control(announced_url(process))
    yield control
    control.http.close()
    assert stop(process) == (0, ""), "it stops cleanly and has logged no error in the whole run"


@pytest.fixture
def control(server: Control) -> Control:
    """The server with default behaviour and empty books."""
    server.reset()
    return server


@pytest.fixture
async def openai(control: Control) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key="sk-test",
        base_url=f"{control.url}/v1",
        max_retries=0,
        timeout=TIMEOUT_S,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def embedder(control: Control) -> AsyncIterator[AsyncOpenAI]:
    """Not strict: the SDK asks for base64 by default, and validates before it unpacks that to floats."""
    async with AsyncOpenAI(api_key="sk-test", base_url=f"{control.url}/v1", max_retries=0, timeout=TIMEOUT_S) as client:
        yield client


@pytest.fixture
async def anthropic(control: Control) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        api_key="sk-test",
        base_url=control.url,
        max_retries=0,
        timeout=TIMEOUT_S,
        _strict_response_validation=True,
    ) as client:
        yield client
