"""The servers of one chaos run: a Valkey that answers only for what is on disk, a PostgreSQL, the models' stand-in.

Each keeps its port and data over a restart. PostgreSQL runs without fsync: its processes are killed here, not the
machine, so that what it acknowledged is in the system's cache; commits are synchronous as in production.
"""

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ops.stack.directory import DataDirectory
from ops.stack.postgres import SOCKET_NAME, Postgres, start_postgres
from ops.stack.schema import apply_migrations, seed_development_key
from ops.stack.standin import Standin, start_standin
from ops.stack.valkey import Valkey, start_valkey
from tests.chaos.link import Streams

VALKEY_SETTINGS = {"appendfsync": "always"}
POSTGRES_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "2GB"}


@dataclass
class Backends:
    """The servers as they are now; restarts replace their handles."""

    directory: DataDirectory
    valkey: Valkey
    postgres: Postgres
    standin: Standin

    async def kill_redis(self) -> None:
        self.valkey.child.signal(signal.SIGKILL)
        await asyncio.to_thread(self.valkey.child.join, 10)

    async def start_redis(self) -> None:
        self.valkey = await asyncio.to_thread(
            start_valkey, self.directory, port=self.valkey.port, settings=VALKEY_SETTINGS
        )

    async def stop_postgres(self, *, crash: bool) -> None:
        """A fast shutdown, or none: sessions are dropped and the next start recovers from the log."""
        self.postgres.child.signal(signal.SIGQUIT if crash else signal.SIGINT)
        await asyncio.to_thread(self.postgres.child.join, 30)
        self.postgres.remove_sockets()

    async def start_postgres(self) -> None:
        self.postgres = await asyncio.to_thread(start_postgres, self.directory, settings=POSTGRES_SETTINGS)

    async def reach_redis(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.valkey.port)

    async def reach_postgres(self) -> Streams:
        return await asyncio.open_unix_connection(str(self.postgres.sockets / SOCKET_NAME))

    @property
    def books_dsn(self) -> str:
        """As superuser: sees every tenant."""
        return self.postgres.dsn("postgres")


@contextlib.asynccontextmanager
async def open_backends() -> AsyncIterator[Backends]:
    """Started, migrated and with the development key; stopped and removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="switchboard-chaos-"))
    path.chmod(0o711)  # for root: its servers run as another user
    try:
        with DataDirectory(path) as directory:
            async with _started(directory) as backends:
                yield backends
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.asynccontextmanager
async def _started(directory: DataDirectory) -> AsyncIterator[Backends]:
    valkey = await asyncio.to_thread(start_valkey, directory, settings=VALKEY_SETTINGS)
    postgres = await asyncio.to_thread(start_postgres, directory, settings=POSTGRES_SETTINGS)
    standin = await asyncio.to_thread(start_standin, directory)
    backends = Backends(directory, valkey, postgres, standin)
    try:
        await asyncio.to_thread(apply_migrations, postgres.dsn("switchboard_owner"))
        await asyncio.to_thread(seed_development_key, postgres.dsn("switchboard_owner"))
        yield backends
    finally:
        await asyncio.to_thread(backends.standin.child.stop)
        await asyncio.to_thread(backends.valkey.child.stop)
        await asyncio.to_thread(backends.postgres.stop)
