"""`python -m ops.standin --host 127.0.0.1 --port 8002`: serve until SIGTERM or SIGINT, then exit with 0.

With port 0 the system picks a free one. The one line on stdout says where it listens, and comes when it does.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn

from ops.standin.app import create_app
from ops.standin.endpoint import Standin

_KEEP_ALIVE_S = 120
"""Longer than any client keeps an idle connection, so that the client closes it: a close that crosses a request on
the wire would look like a fault that nobody asked for."""
_STOP_GRACE_S = 2
_BACKLOG = 4_096


class _Server(uvicorn.Server):
    """Announces itself, and lets go of callers that would otherwise hang for ever when it stops."""

    def __init__(self, config: uvicorn.Config, standin: Standin, url: str) -> None:
        super().__init__(config)
        self._standin = standin
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        print(f"stand-in models on {self._url}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._standin.callers.dismiss()
        await super().shutdown(sockets=sockets)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.standin", description="Stand-in model server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8002, help="0 picks a free one")
    options = parser.parse_args(arguments)
    try:
        listener = socket.create_server((options.host, options.port), backlog=_BACKLOG)
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return 1
    _serve(listener, f"http://{options.host}:{listener.getsockname()[1]}")
    return 0


def _serve(listener: socket.socket, url: str) -> None:
    standin = Standin()
    config = uvicorn.Config(
        create_app(standin),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        log_level="warning",
        access_log=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_GRACE_S,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_unexpected)
    # uvicorn raises a signal that stopped it once more when it is done: by then there is nothing left to stop
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    _Server(config, standin, url).run(sockets=[listener])


def _is_unexpected(record: logging.LogRecord) -> bool:
    """A connection closed within an answer is a fault that was asked for, or a caller let go at the end."""
    return not record.getMessage().startswith("ASGI callable returned without")


def _ignore(_number: int, _frame: FrameType | None) -> None: ...


if __name__ == "__main__":
    sys.exit(main())
