"""The processes of one stack, in the order they were started: watched together, stopped in reverse.

`switchboard dev` is its one user. Everything that happens (a child ended, a signal came) goes through one queue, read
by the main thread; the children's own threads and the signal handlers only put things into it. After `stop()` nothing
runs.
"""

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from ops.stack.process import Child, Program, StackError, describe_exit, start, watch

STOP_DEADLINE_S = 15.0
RESTART_PAUSE_S = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COLOURS = (36, 33, 32, 35, 34, 31)


class StopRequested(Exception):
    """Ctrl-C or SIGTERM."""


@dataclass
class _Member:
    child: Child
    restart_when_killed: bool


class Supervisor:
    """Own the stop signals until `restore_signals()`; a second signal while stopping kills what is left."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Child | None] = queue.SimpleQueue()
        self._members: list[_Member] = []
        self._stopping = threading.Event()
        self._hurry = False
        self._handlers = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}

    def restore_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def add(self, program: Program, *, restart_when_killed: bool = False) -> Child:
        """Start `program` under watch, its output shown under its name."""
        child = start(program, on_line=show, on_exit=self._events.put)
        self._members.append(_Member(child, restart_when_killed))
        return child

    def adopt(self, child: Child) -> None:
        """Watch a child that somebody else started and waited for."""
        self._members.append(_Member(child, restart_when_killed=False))
        watch(child, on_exit=self._events.put)

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """False when `timeout_s` is over. Raises StopRequested, or StackError when a part ended meanwhile."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self.handle_next(timeout_s=0.25)
            if ready():
                return True
        return False

    def handle_next(self, timeout_s: float | None = None) -> None:
        """Wait for one event and act on it. Raises as `wait_until`."""
        try:
            ended = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return
        if ended is None:
            raise StopRequested
        member = next((one for one in self._members if one.child is ended), None)
        if member is not None:
            self._handle_end(member)

    def stop(self) -> None:
        """Ask the children to end, the last started first; those of one name stem together."""
        self._stopping.set()
        while self._members:
            stem = _stem(self._members[-1])
            group = [member for member in self._members if _stem(member) == stem]
            self._members = [member for member in self._members if _stem(member) != stem]
            for member in group:
                member.child.signal(member.child.program.stop_signal)
            self._join(group)

    def _join(self, group: list[_Member]) -> None:
        deadline_s = time.monotonic() + STOP_DEADLINE_S
        while any(member.child.exit_code is None for member in group):
            if self._hurry or time.monotonic() > deadline_s:
                for child in (member.child for member in group if member.child.exit_code is None):
                    show(child.name, "killed" if self._hurry else f"did not end within {STOP_DEADLINE_S:.0f} s: killed")
                    child.join(0)
            time.sleep(0.02)

    def _handle_end(self, member: _Member) -> None:
        child, code = member.child, member.child.exit_code or 0
        if not (member.restart_when_killed and code == -signal.SIGKILL):
            raise StackError(f"{child.name} ended unexpectedly ({describe_exit(code)})\n{child.tail()}")
        show(child.name, f"{describe_exit(code)}; starting it again")
        pause_s = child.started_s + RESTART_PAUSE_S - time.monotonic()
        if pause_s > 0:
            time.sleep(pause_s)
        member.child = start(child.program, on_line=show, on_exit=self._events.put)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping.is_set():
            self._hurry = True
        self._events.put(None)


def show(name: str, line: str) -> None:
    """One line of a child on the terminal, after its name."""
    label = f"{name:<9}"
    if sys.stdout.isatty():
        colour = COLOURS[sum(name.encode()) % len(COLOURS)]
        label = f"\x1b[{colour}m{label}\x1b[0m"
    try:
        sys.stdout.write(f"{label} {line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        return  # nobody reads our output any more; the log file has the line


def _stem(member: _Member) -> str:
    return member.child.name.partition("-")[0]
