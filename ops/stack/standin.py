"""The stand-in model server as our child: it takes a free port itself and says which on its first line.

Used by the tests; `switchboard dev` starts it on a port of its own choice and as one of its processes.
"""

import re
import sys
from dataclasses import dataclass

from ops.stack.directory import DataDirectory
from ops.stack.process import Child, Program, start

START_TIMEOUT_S = 60.0
ANNOUNCEMENT = re.compile(r"stand-in models on (http://\S+)")


@dataclass(frozen=True)
class Standin:
    child: Child
    url: str

    @property
    def openai_base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        return self.url


def start_standin(directory: DataDirectory) -> Standin:
    """Start on a free loopback port and wait until it accepts connections."""
    log = directory.log("standin")
    log.write_bytes(b"")  # the announcement of an earlier run would name its port
    argv = [sys.executable, "-m", "ops.standin", "--host", "127.0.0.1", "--port", "0"]
    child = start(Program(name="standin", argv=argv, log=log))
    try:
        child.wait_until(lambda: ANNOUNCEMENT.search(log.read_text()) is not None, START_TIMEOUT_S)
    except BaseException:
        child.stop()
        raise
    announced = ANNOUNCEMENT.search(log.read_text())
    assert announced is not None  # noqa: S101 - the wait above ends only with it
    return Standin(child, announced.group(1))
