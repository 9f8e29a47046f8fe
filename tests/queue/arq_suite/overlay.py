"""A pytest plugin around arq's tests: our server in place of a container, our worker in place of arq's.

Loaded by name into the process that runs them (`-p overlay`), before arq's conftest imports anything.
"""

import asyncio
import sys
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import arq.worker
import pytest


class RedisContainer:
    """Stands for testcontainers' class of this name: the server is there already."""

    port = 0

    def __init__(self, image: str) -> None:
        self.image = image

    def __enter__(self) -> "RedisContainer":
        return self

    def __exit__(self, *failure: object) -> None:
        """The server outlives us."""

    def get_container_host_ip(self) -> str:
        return "127.0.0.1"

    def get_exposed_port(self, port: int) -> int:
        return port


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--worker", default="arq.worker:Worker", help="the class under test, as module:name")
    parser.addoption("--redis-port", type=int, help="a server that may be flushed")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    options = early_config.known_args_namespace
    RedisContainer.port = options.redis_port
    testcontainers, redis = ModuleType("testcontainers"), ModuleType("testcontainers.redis")
    redis.RedisContainer = RedisContainer  # type: ignore[attr-defined]  # a module made here
    sys.modules |= {"testcontainers": testcontainers, "testcontainers.redis": redis}
    worker: Any = resolve_name(options.worker)
    arq.worker.Worker = arq.Worker = worker  # type: ignore[misc]  # a swap is what we are here for


@pytest.fixture
async def event_loop() -> asyncio.AbstractEventLoop:
    """What older releases of pytest-asyncio offered under this name: the loop that a test's fixtures run in."""
    return asyncio.get_running_loop()
