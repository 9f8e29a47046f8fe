"""One stack at a time on one data directory, however the one before it ended."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ops.stack.directory import DataDirectory
from ops.stack.process import StackError

HOLDER = """
import sys
from pathlib import Path
from ops.stack.directory import DataDirectory
from ops.stack.valkey import start_valkey
directory = DataDirectory(Path(sys.argv[1]))
print(start_valkey(directory).child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared(stack_directory: DataDirectory, request: pytest.FixtureRequest) -> Path:
    return stack_directory.path / str(request.node.name)


def test_a_second_stack_is_told_which_process_has_the_directory(shared: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shared)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(StackError, match=rf"already running \(pid {holder.pid}\)"):
            DataDirectory(shared)
        holder.kill()


def test_the_servers_of_a_killed_stack_end_and_the_next_one_waits_for_them(shared: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shared)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        server = psutil.Process(int(holder.stdout.readline()))
        server.send_signal(signal.SIGSTOP)  # it cannot end yet: the lock must outlive its owner
        holder.kill()
        holder.wait()
        assert psutil.pid_exists(server.pid)
        server.send_signal(signal.SIGCONT)
        with DataDirectory(shared):
            assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_closing_leaves_no_lock(shared: Path) -> None:
    with DataDirectory(shared) as directory:
        assert (directory.path / "stack.lock").exists()
    assert list(shared.iterdir()) == []
    with DataDirectory(shared):
        pass


def test_a_directory_that_cannot_be_had_is_one_clear_line(shared: Path) -> None:
    shared.touch()
    with pytest.raises(StackError, match=r"^cannot use the data directory .*: File exists$"):
        DataDirectory(shared)
