"""A PgBouncer in transaction mode before the run's PostgreSQL, for `make test-pgbouncer`.

Every transaction may meet another server connection, so that whatever a session was believed to remember is found out:
two connections to the server for all the pools of a test.
"""

import shutil
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from ops.stack.directory import DataDirectory
from ops.stack.postgres import Postgres
from ops.stack.process import Child, Program, start

CONFIGURATION = """
[databases]
* = host={sockets}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
max_client_conn = 500
server_round_robin = 1
"""
ROLES = ("switchboard_app", "switchboard_ops")


@dataclass(frozen=True)
class PgBouncer:
    child: Child
    port: int

    def dsn(self, direct: str) -> str:
        """The same role and database, through here."""
        parts = urlsplit(direct)
        return f"postgresql://{parts.username}@127.0.0.1:{self.port}{parts.path}"

    def stop(self) -> None:
        self.child.stop()


def start_pgbouncer(program: str, directory: DataDirectory, postgres: Postgres) -> PgBouncer:
    folder = directory.subdirectory("pgbouncer")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text("".join(f'"{role}" ""\n' for role in ROLES), "utf-8")
    configuration.write_text(CONFIGURATION.format(sockets=postgres.sockets, port=port, users=users), "utf-8")
    started = Program(
        name="pgbouncer",
        argv=[shutil.which(program) or program, str(configuration)],  # whoever starts it may read little else
        log=directory.log("pgbouncer"),
        cwd=folder,
        account=directory.account,
        keep_fds=(directory.lock_fd,),
    )
    bouncer = PgBouncer(start(started), port)
    try:
        bouncer.child.wait_until(lambda: _listens(port), 10.0)
    except BaseException:
        bouncer.stop()
        raise
    return bouncer


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
