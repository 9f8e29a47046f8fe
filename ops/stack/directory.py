"""The data directory of one stack: who owns it, and the lock that lets one stack at a time use it.

The embedded servers inherit the lock's descriptor, so the lock is free exactly when neither the stack nor a server of
it is alive: whoever holds it may remove what a killed run left behind. An orderly stop removes the file.
"""

import fcntl
import os
import pwd
import stat
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.stack.process import Account, StackError

ORPHANS_END_S = 20.0
"""How long the servers of a killed stack may take to end before a new start gives up."""


class DataDirectory:
    """`path`, locked from construction to `close()`. Raises StackError in one line when it cannot be had."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock_path = self.path / "stack.lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock_fd = self._acquire()
        except OSError as error:
            raise StackError(f"cannot use the data directory {self.path}: {error.strerror}") from None
        self.account = _server_account(self.path)
        self.let_in(self.path)

    def subdirectory(self, name: str) -> Path:
        """A folder for the servers, private to the account they run under."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.account is not None:
            os.chown(folder, *self.account)
        return folder

    def let_in(self, folder: Path) -> None:
        """Let the servers' account pass through `folder` and those above it (search only, nothing becomes readable)."""
        if self.account is None:
            return
        for step in (folder, *folder.parents):
            mode = stat.S_IMODE(step.stat().st_mode)
            if not mode & stat.S_IXOTH:
                step.chmod(mode | stat.S_IXOTH)
                print(f"chmod o+x {step}: the servers do not run as root and must pass through it", file=sys.stderr)

    def let_read(self, folder: Path) -> None:
        """Let the servers' account use the programs in `folder`; a strict umask made them private to root."""
        if self.account is None:
            return
        self.let_in(folder)
        for path in folder.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if mode != wanted:
                path.chmod(wanted)

    def log(self, name: str) -> Path:
        folder = self.path / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.log"

    @property
    def env(self) -> Path:
        """What other terminals read to find this stack. An orderly stop removes it."""
        return self.path / "env"

    def write_env(self, text: str) -> None:
        """For the eyes of whoever started the stack: addresses may hold passwords."""
        self.env.unlink(missing_ok=True)  # a killed stack's, perhaps with another owner
        with os.fdopen(os.open(self.env, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)

    def close(self) -> None:
        self.env.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)  # still locked: nobody can be between open and flock unnoticed
        os.close(self.lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _acquire(self) -> int:
        deadline = time.monotonic() + ORPHANS_END_S
        while (fd := self._try_lock()) is None:
            owner = _read_pid(self._lock_path)
            if owner and _is_alive(owner):
                raise StackError(f"a stack on {self.path} is already running (pid {owner})")
            if owner and time.monotonic() > deadline:
                raise StackError(f"servers of a killed stack still use {self.path}: end them first")
            time.sleep(0.05)  # its servers are ending, or its owner is just writing its pid
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def _try_lock(self) -> int | None:
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == self._lock_path.stat().st_ino:  # else: the holder before us removed this file
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(fd)
        return None


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _server_account(path: Path) -> Account | None:
    """Root hands the servers to the directory's owner, or else to `nobody`; an ordinary user keeps its own (None)."""
    if os.geteuid() != 0:
        return None
    owner = path.stat()
    if owner.st_uid != 0:
        return owner.st_uid, owner.st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid
