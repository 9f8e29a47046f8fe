"""The product's processes on the run's servers, and schemathesis, as its command line, against one of them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from shared.config import Settings
from tests.stack.dev_process import REPOSITORY, free_base_port
from tests.turn.deployment import environment_of

START_TIMEOUT_S = 120.0
KNOWN_VALUES = """
[dictionaries.{name}]
values = {values}

[parameters."{place}"]
dictionary = "{name}"
probability = 0.6
"""
CONFIGURATION = """
hooks = "{hooks}"
request-timeout = 90
continue-on-failure = true

[output.sanitization]
enabled = false

[auth.openapi.bearer]
bearer = "{key}"

[generation]
deterministic = true
database = "none"
max-examples = {max_examples}

[phases.stateful]
max-steps = 4

[checks]
# Ours instead: tests/openapi/fuzz_checks.py.
positive_data_acceptance.enabled = false
requests_by_the_document_are_taken.enabled = true
# DELETE cancels a job and discards a dead one; both stay, to be looked at.
use_after_free.enabled = false
"""


@dataclass(frozen=True)
class Stack:
    ingress: str
    console: str
    key: str


@asynccontextmanager
async def running(settings: Settings, key: str, folder: Path) -> AsyncIterator[Stack]:
    """An ingress, a worker and a console as processes; ready. Their logs stay in `folder`, which pytest keeps."""
    port = free_base_port()
    started = [
        await _start(settings, folder, "ingress", "--port", str(port)),
        await _start(settings, folder, "worker"),
        await _start(settings, folder, "console", "--port", str(port + 1)),
    ]
    stack = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", key)
    try:
        await _until_ready(started, f"{stack.ingress}/health/stack", f"{stack.console}/health/ready")
        yield stack
        assert [process.returncode for process in started] == [None] * 3, "a process has ended"
    finally:
        for process in started:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in started))


async def schemathesis(url: str, key: str, folder: Path, *, max_examples: int, known: Mapping[str, list[str]]) -> str:
    """Its report, empty when it found nothing. `known`: values to use as well, by `location.name`."""
    hooks = Path(__file__).with_name("fuzz_checks.py")
    configuration = folder / "schemathesis.toml"
    configuration.write_text(
        CONFIGURATION.format(hooks=hooks, key=key, max_examples=max_examples) + _with(known),
        "utf-8",
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "--no-color"),
        *("run", f"{url}/openapi.json"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        report, _ = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        raise
    return report.decode() if process.returncode else ""


def _with(known: Mapping[str, list[str]]) -> str:
    return "".join(
        KNOWN_VALUES.format(name=place.partition(".")[2], values=json.dumps(values), place=place)
        for place, values in known.items()
    )


async def _start(settings: Settings, folder: Path, name: str, *options: str) -> asyncio.subprocess.Process:
    with (folder / f"{name}.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops", name, *options),
            cwd=REPOSITORY,
            env=environment_of(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def _until_ready(started: list[asyncio.subprocess.Process], *urls: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(START_TIMEOUT_S):
        for url in urls:
            while not await _answers(client, url):
                assert all(process.returncode is None for process in started), "a process could not start"
                await asyncio.sleep(0.05)


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False
