"""A child process says why it could not start, and ends when it is told to."""

import signal
import sys
from pathlib import Path

import pytest

from ops.stack.process import Child, Program, StackError, start

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"


def python(code: str, folder: Path) -> Child:
    return start(Program(name="part", argv=[sys.executable, "-c", code], log=folder / "part.log"))


def test_a_part_that_ends_while_starting_is_named_with_the_tail_of_its_log(tmp_path: Path) -> None:
    child = python("import sys; sys.exit('no such setting')", tmp_path)
    with pytest.raises(StackError, match=r"^part ended while starting \(exit code 1\)\n    no such setting$"):
        child.wait_until(lambda: False, timeout_s=60)


def test_a_part_that_never_gets_ready_is_named(tmp_path: Path) -> None:
    child = python(STUBBORN, tmp_path)
    with pytest.raises(StackError, match=r"^part was not ready after 0 s"):
        child.wait_until(lambda: False, timeout_s=0.05)
    child.stop(timeout_s=0)


def test_a_part_that_ignores_its_stop_signal_is_killed_at_the_deadline(tmp_path: Path) -> None:
    child = python(STUBBORN, tmp_path)
    child.wait_until(lambda: "up" in child.tail(), timeout_s=60)
    assert child.stop(timeout_s=0.1) == -signal.SIGKILL


def test_a_command_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    child = start(Program(name="part", argv=["/no/such/program"], log=tmp_path / "part.log"))
    with pytest.raises(StackError, match=r"cannot start /no/such/program: .*No such file"):
        child.wait_until(lambda: False, timeout_s=60)
