"""Child processes of the development stack: started, watched, ended.

Used by the embedded servers, by `switchboard dev` and by the test fixtures. A child leads its own session, so that
Ctrl-C in a terminal reaches only us and we end the children in order; it dies with us even when we are killed
(see launch.py).
Start children from the main thread: the kernel ties the parent-death signal to the thread that started them.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import SwitchboardError

LAUNCH = Path(__file__).with_name("launch.py")
POLL_S = 0.02

Account = tuple[int, int]
"""User and group id."""


class StackError(SwitchboardError):
    """A part of the stack cannot run; the message is one line for a person (a log's tail may follow it)."""

    code = "stack_error"


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to start. `stop_signal` asks it to end; `orphan_signal` reaches it when we died without stopping it."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    keep_fds: tuple[int, ...] = ()
    """Descriptors it inherits: the lock of the data directory, which so outlives us as long as it does."""


@dataclass
class Child:
    """A running program. Its output goes to its log, and line by line to `on_line` when one is given."""

    program: Program
    process: "subprocess.Popen[bytes]"
    log_start: int = 0
    """Bytes of the log that earlier runs wrote."""
    started_s: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.poll()

    def tail(self, lines: int = 15) -> str:
        """The last lines of this run's log, indented."""
        text = self.program.log.read_bytes()[self.log_start :].decode(errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll until `ready()`; raises StackError when the child ends first or the time is up."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.exit_code is not None:
                raise StackError(f"{self.name} ended while starting ({describe_exit(self.exit_code)})\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready after {timeout_s:.0f} s\n{self.tail()}")
            time.sleep(POLL_S)

    def stop(self, timeout_s: float = 10.0) -> int:
        """Ask it to end, kill its whole session at the deadline; returns its exit code."""
        self.signal(self.program.stop_signal)
        return self.join(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def join(self, timeout_s: float) -> int:
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.process.wait()


def start(
    program: Program,
    *,
    on_line: Callable[[str, str], None] | None = None,
    on_exit: Callable[[Child], None] | None = None,
) -> Child:
    """Start `program`. `on_line(name, line)` and `on_exit(child)` are called from a thread of the child's own."""
    with program.log.open("ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(
            launch_command(program.argv, orphan_signal=program.orphan_signal, account=program.account),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if on_line else log,
            stderr=subprocess.STDOUT if on_line else log,
            env=program.env,
            cwd=program.cwd,
            start_new_session=True,
            pass_fds=program.keep_fds,
        )
    child = Child(program, process, log_start)
    if on_line or on_exit:
        watch(child, on_line=on_line, on_exit=on_exit)
    return child


def watch(
    child: Child,
    *,
    on_line: Callable[[str, str], None] | None = None,
    on_exit: Callable[[Child], None] | None = None,
) -> None:
    """Follow the child from a thread of its own, to its end."""
    threading.Thread(target=_watch, args=(child, on_line, on_exit), name=child.name, daemon=True).start()


def launch_command(
    argv: Sequence[str], *, orphan_signal: signal.Signals = signal.SIGKILL, account: Account | None = None
) -> list[str]:
    """`argv`, started through launch.py."""
    who = "-" if account is None else f"{account[0]}:{account[1]}"
    return [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(int(orphan_signal)), who, *argv]


def describe_exit(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _watch(child: Child, on_line: Callable[[str, str], None] | None, on_exit: Callable[[Child], None] | None) -> None:
    if on_line and child.process.stdout:
        with child.program.log.open("ab", buffering=0) as log, child.process.stdout as output:
            for line in output:
                log.write(line)
                on_line(child.name, line.decode(errors="replace").rstrip("\n"))
    child.process.wait()
    if on_exit:
        on_exit(child)
