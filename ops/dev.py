"""`switchboard dev`: the whole product on one machine, from real parts, in one command.

Locks the data directory, starts Valkey and PostgreSQL (unless REDIS_URL, DATABASE_URL name others), migrates, seeds the
development key, starts the stand-in model server (unless a provider's key is set), then the processes of the Procfile.
Children get their configuration from the environment alone. When `run` returns, nothing is left but the data.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis

from ops.stack.directory import DataDirectory
from ops.stack.environment import Backends, Ports, check_ports, for_children, for_terminal, uses_standin
from ops.stack.panel import print_panel
from ops.stack.postgres import start_postgres
from ops.stack.process import Program, StackError
from ops.stack.schema import apply_migrations, check_redis, seed_development_key
from ops.stack.supervisor import StopRequested, Supervisor
from ops.stack.valkey import start_valkey
from shared import keys
from shared.config import Settings

READY_TIMEOUT_S = 60.0


def run(settings: Settings, *, workers: int, data: Path) -> int:
    """Run until Ctrl-C or SIGTERM; returns the exit code. Raises StackError when a part cannot start or ends."""
    ports = Ports(settings.port)
    with ExitStack() as cleanup:
        directory = cleanup.enter_context(DataDirectory(data))
        check_ports(settings.host, {"ingress": ports.ingress, "console": ports.console})
        if uses_standin(settings):
            check_ports("127.0.0.1", {"stand-in models": ports.standin})
        supervisor = Supervisor()
        cleanup.callback(supervisor.restore_signals)
        after_stop = cleanup.enter_context(ExitStack())
        cleanup.callback(supervisor.stop)
        backends = _start_backends(settings, directory, supervisor, after_stop)
        stack = _Stack(settings, ports, backends, directory, supervisor)
        try:
            stack.start(workers)
            while True:
                supervisor.handle_next()
        except StopRequested:
            print("stopping …", flush=True)
    return 0


def _start_backends(
    settings: Settings, directory: DataDirectory, supervisor: Supervisor, after_stop: ExitStack
) -> Backends:
    given = settings.model_fields_set
    redis_url, app = settings.redis_url, settings.database_url
    owner, operator = settings.owner_database_url, settings.ops_database_url
    if "redis_url" not in given:
        valkey = start_valkey(directory)
        supervisor.adopt(valkey.child)
        redis_url = valkey.url()
    if "database_url" not in given:
        postgres = start_postgres(directory)
        after_stop.callback(postgres.remove_sockets)
        supervisor.adopt(postgres.child)
        app, owner, operator = (postgres.dsn(f"switchboard_{role}") for role in ("app", "owner", "ops"))
    return Backends(redis_url=redis_url, database_url=app, owner_database_url=owner or app, ops_database_url=operator)


@dataclass(frozen=True)
class _Stack:
    settings: Settings
    ports: Ports
    backends: Backends
    directory: DataDirectory
    supervisor: Supervisor

    def url(self, port: int) -> str:
        host = "127.0.0.1" if self.settings.host in {"0.0.0.0", "::"} else self.settings.host  # noqa: S104 - compared
        return f"http://{host}:{port}"

    def start(self, workers: int) -> None:
        """Everything from the schema to the first healthy answers of ingress (`/health/stack`) and console."""
        check_redis(self.backends.redis_url)
        if applied := apply_migrations(self.backends.owner_database_url):
            print(f"migrated: {', '.join(applied)}", flush=True)
        seed_development_key(self.backends.owner_database_url)
        environment = for_children(self.settings, self.ports, self.backends)
        self.directory.write_env(for_terminal(environment))
        standin = uses_standin(self.settings)
        if standin:
            self._add("standin", ["ops.standin", "--host", "127.0.0.1", "--port", str(self.ports.standin)], environment)
        self._add("ingress", ["ops", "ingress"], environment)
        self._add_delivery(environment)
        self._add("console", ["ops", "console"], {**environment, "PORT": str(self.ports.console)})
        for number in range(1, workers + 1):
            self._add(f"worker-{number}", ["ops", "worker"], environment, restart_when_killed=True)
        self._wait_until_healthy()
        ingress, console = self.url(self.ports.ingress), self.url(self.ports.console)
        print_panel(ingress, console, self.ports, self.backends, standin=standin, directory=self.directory)

    def _add_delivery(self, environment: Mapping[str, str]) -> None:
        """Needs the role that sees every tenant: with a Postgres of the user's own there may be none."""
        if self.backends.ops_database_url:
            self._add("delivery", ["ops", "delivery"], environment, restart_when_killed=True)
        else:
            print("no deliveries are sent: SWITCHBOARD_OPS_DATABASE_URL is not set", flush=True)

    def _add(
        self, name: str, module: Sequence[str], environment: Mapping[str, str], *, restart_when_killed: bool = False
    ) -> None:
        argv = [sys.executable, "-m", *module]
        program = Program(name=name, argv=argv, log=self.directory.log(name), env=environment)
        self.supervisor.add(program, restart_when_killed=restart_when_killed)

    def _wait_until_healthy(self) -> None:
        last = "no answer"

        def well(url: str) -> bool:
            nonlocal last
            try:
                answer = httpx.get(url, timeout=5, trust_env=False)
            except httpx.TransportError:
                return False
            last = answer.text
            return answer.status_code == 200

        urls = [f"{self.url(self.ports.ingress)}/health/stack", f"{self.url(self.ports.console)}/health/ready"]

        def all_well() -> bool:
            nonlocal last
            # The last to come. The ingress, asked so early, would write a line for every time that it has to say no.
            if not _has_worker(self.backends.redis_url, self.settings.queue):
                last = "no worker has a lease"
                return False
            return all(well(url) for url in urls)

        if not self.supervisor.wait_until(all_well, READY_TIMEOUT_S):
            raise StackError(f"the stack is not healthy after {READY_TIMEOUT_S:.0f} s: {last}")


def _has_worker(redis_url: str, queue: str) -> bool:
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        try:
            seconds, micros = client.time()
            return bool(client.zcount(keys.leases(queue), f"({seconds * 1000 + micros // 1000}", "+inf"))
        except redis.RedisError:
            return False
