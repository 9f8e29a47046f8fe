"""Become another program that cannot outlive its parent; run as a script, with the standard library only.

    python -I -S launch.py PARENT_PID SIGNAL UID:GID|- COMMAND ARG…

A script of its own because `preexec_fn` is not safe in a parent that has threads. The kernel sends SIGNAL when the
parent is gone, however it went (Linux; elsewhere only an orderly stop ends the children). UID:GID is set first, for a
parent that is root: PostgreSQL refuses to run as root, and a change of user would clear the parent-death signal.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def drop_privileges(account: str) -> None:
    uid, gid = (int(part) for part in account.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with_parent(parent: int, signal_number: int) -> None:
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def main(parent: str, signal_number: str, account: str, *command: str) -> None:
    if account != "-":
        drop_privileges(account)
    die_with_parent(int(parent), int(signal_number))
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted here


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot start {sys.argv[4]}: {error}")
