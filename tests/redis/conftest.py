"""`Commands` against real servers: the run's Valkey, and one of a test's own that it may freeze, kill and restart."""

from collections.abc import AsyncIterator, Iterator

import pytest

from ops.stack.directory import DataDirectory
from ops.stack.valkey import Valkey, start_valkey
from shared.redis import Commands, connect


@pytest.fixture
async def commands(redis_url: str) -> AsyncIterator[Commands]:
    made = Commands(connect(redis_url))
    yield made
    await made.aclose()


@pytest.fixture
def own_valkey(private_directory: DataDirectory) -> Iterator[Valkey]:
    """A server that a test may do anything to, but for restarting it."""
    server = start_valkey(private_directory, settings={"enable-debug-command": "local"})
    yield server
    server.child.stop()


@pytest.fixture
async def own_commands(own_valkey: Valkey) -> AsyncIterator[Commands]:
    """Impatient: gives up after two seconds without an answer."""
    made = Commands(connect(own_valkey.url()), timeout_s=2.0)
    yield made
    await made.aclose()
