"""`switchboard dev` as a real process for the tests: started, watched, ended, and searched for what it leaves."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).parent.parent.parent
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Person:
    """Who runs the stack: an interpreter they may execute, and their user id when it is not ours."""

    python: str = sys.executable
    user: int | None = None

    def popen(self, *arguments: str, output: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        with output.open("wb") as file:
            return subprocess.Popen(
                [self.python, "-m", "ops", *arguments],
                cwd=REPOSITORY,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user is not None else None,
            )


@dataclass(frozen=True)
class DevStack:
    process: "subprocess.Popen[bytes]"
    port: int
    output: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def text(self) -> str:
        return self.output.read_text()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, command: str) -> psutil.Process:
        """The one child whose command line ends with `command`."""
        (found,) = self.children(command)
        return found

    def children(self, command: str) -> list[psutil.Process]:
        """Those whose command line ends with `command`, and who have not ended."""
        found = []
        for one in self.family():
            with suppress(psutil.NoSuchProcess):  # it ended while we looked
                if " ".join(one.cmdline()).endswith(command):
                    found.append(one)
        return found

    def wait_ready(self) -> None:
        wait_for(lambda: "Switchboard is ready" in self.text or self.process.poll() is not None, START_TIMEOUT_S)
        assert self.process.poll() is None, self.text

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(STOP_TIMEOUT_S)

    def api(self) -> httpx.Client:
        headers = {"Authorization": "Bearer sk-switchboard-dev"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=90, trust_env=False)


def launch(
    data: Path, port: int | None, *, person: Person | None = None, env: Mapping[str, str] | None = None
) -> DevStack:
    """Start without waiting, on the default port when `port` is None; our own settings come from `env` alone."""
    who = person or Person()
    output = data.parent / f"{data.name}-{time.monotonic_ns()}.out"
    arguments = ["dev", "--data", str(data)] + ([] if port is None else ["--port", str(port)])
    process = who.popen(*arguments, output=output, env=clean_environment(data.parent) | dict(env or {}))
    return DevStack(process, port or 8000, output)


@contextmanager
def running(data: Path, *, person: Person | None = None) -> Iterator[DevStack]:
    """A ready stack on free ports; ended in order afterwards, unless the test did."""
    stack = launch(data, free_base_port(), person=person)
    try:
        stack.wait_ready()
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.stop()


def clean_environment(home: Path) -> dict[str, str]:
    """What a shell has, without our settings: they would switch embedded parts off."""
    inherited = dict(os.environ)  # noqa: TID251 - PATH and the like for a child process
    keep = {name: inherited[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in inherited}
    packages = os.pathsep.join(part for part in sys.path if part.endswith("-packages"))
    return keep | {"HOME": str(home), "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(home)}


def free_base_port() -> int:
    """N such that N, N + 1 and N + 2 are free; below the range the system hands out itself.

    Each process of a run has a range of its own: what was found free is taken seconds later.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # noqa: TID251 - pytest-xdist's
    first = 20_000 + worker % 8 * 1_500
    for base in range(first + os.getpid() % 100 * 7, first + 1_490, 7):
        if all(_is_free(base + offset) for offset in range(3)):
            return base
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not true within {timeout_s} s"
        time.sleep(0.05)


def assert_gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def people() -> dict[str, Person]:
    """Ourselves, and for root also an ordinary user, if the machine has an interpreter that user may run."""
    found = {"myself": Person()}
    if os.geteuid() == 0:
        nobody = 65534
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for python in (sys.executable, f"/usr/local/bin/{name}", f"/usr/bin/{name}"):
            if _can_run(python, nobody):
                found["ordinary user"] = Person(python, nobody)
                break
    return found


def _can_run(python: str, user: int) -> bool:
    command = [python, "-c", "import ops.dev, uvloop, asyncpg, tiktoken"]
    try:
        probe = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=clean_environment(Path("/")),
            user=user,
            group=user,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return probe.returncode == 0
