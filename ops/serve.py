"""Serve an ASGI application with uvicorn: `switchboard ingress`.

What is wrong at start (Redis away, a setting) leaves as the SwitchboardError it was, for the command line to say in one
line; uvicorn would log its traceback. On SIGTERM open requests get a few seconds, then the lifespan closes.
"""

import socket

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.config import Settings
from shared.errors import ConfigError, SwitchboardError

GRACEFUL_STOP_S = 10
"""How long open requests may go on after SIGTERM (streams reconnect with Last-Event-ID)."""
KEEP_ALIVE_S = 75
"""Longer than the 60 s of common load balancers, so that they never reuse a connection we are just closing."""


def serve(app: Starlette, settings: Settings, *, http: type[HttpToolsProtocol] = HttpToolsProtocol) -> None:
    """Until a signal. `http` is what makes requests of a connection's bytes. Raises the SwitchboardError that kept the
    application from starting; ConfigError, before anything is started, for an address that cannot be listened on."""
    _expect_free(settings.host, settings.port)
    watched = _Watched(app)
    config = Config(
        watched,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=http,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # ingress.address reads them, of the proxies that settings trust
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
    )
    try:
        Server(config).run()
    except SystemExit:  # uvicorn's way to say that the start failed
        if watched.fault is None:
            raise
        raise watched.fault from None


def _expect_free(host: str, port: int) -> None:
    """uvicorn would find out when everything else is open, and name no setting."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                probe = socket.socket(family, kind, protocol)
            except OSError:  # a family that this machine has not: the server leaves it out, too
                continue
            with probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "this is no name"
        raise ConfigError(
            f"SWITCHBOARD_HOST={host} PORT={port}: must be an address of this machine and a free port "
            f"({why}), for example SWITCHBOARD_HOST=127.0.0.1 PORT=8000"
        ) from None


class _Watched:
    """The application, its expected start-up fault kept instead of logged."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self.fault: SwitchboardError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        held: list[Message] = []

        async def hold_failure(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                held.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold_failure)
        except SwitchboardError as error:
            self.fault = error
            held = [{**message, "message": ""} for message in held]
            raise
        finally:
            for message in held:
                await send(message)
