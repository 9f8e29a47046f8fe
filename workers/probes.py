"""A worker's own small HTTP server: `/metrics`, `/health/live`, `/health/ready`; on with SWITCHBOARD_METRICS_PORT.

Chat workers and delivery processes have one. It lives in the process's event loop on purpose: a loop that is stuck
answers no probe. Several on one host take the first free port each, from the setting on; which one is logged, and told
to Prometheus by `scrape.py`.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.config import Settings
from shared.db import Pool
from shared.errors import ConfigError, Unavailable
from shared.telemetry.metrics import CONTENT_TYPE, exposition, opens
from workers.queue.worker import LeaseWorker

log = structlog.get_logger("worker")

PORTS = 64
"""Workers of one host that find a port each."""
PROBE_TIMEOUT_S = 2.0
_NO_STORE = {"cache-control": "no-store"}

Work = Callable[[], tuple[str, str]]
"""What must be well beside Postgres: its name, and `ok` or what is wrong."""


@asynccontextmanager
async def serving(settings: Settings, work: Work, pool: Pool) -> AsyncIterator[str | None]:
    """While the block lasts. Its `host:port`; None when it is switched off. Raises ConfigError without a free port."""
    if not settings.metrics_port:
        yield None
        return
    listening = first_free(settings.host, settings.metrics_port)
    port = listening.getsockname()[1]
    server = _InThisLoop(
        uvicorn.Config(
            _app(settings, work, pool),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    running = asyncio.ensure_future(server.serve([listening]))
    log.info("worker.metrics", host=settings.host, port=port)
    try:
        yield f"{_reachable(settings.host)}:{port}"
    finally:
        server.should_exit = True
        await asyncio.wait([running])


def first_free(host: str, base_port: int) -> socket.socket:
    """A socket that listens already, so that no other worker can believe to have the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(base_port, min(base_port + PORTS, 65_536)):
        try:
            return socket.create_server((host, port), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"SWITCHBOARD_METRICS_PORT={base_port}: {host}:{port}: {error.strerror}") from None
    raise ConfigError(f"SWITCHBOARD_METRICS_PORT={base_port}: neither it nor the next {PORTS - 1} ports are free")


def _reachable(host: str) -> str:
    """The name of this machine (in a container: of the container) where we listen on every address."""
    return socket.gethostname() if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host  # noqa: S104 - compared


class _InThisLoop(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's."""
        yield


def _app(settings: Settings, work: Work, pool: Pool) -> Starlette:
    async def metrics(request: Request) -> Response:
        token = settings.metrics_token
        if token is not None and not opens(token, request.headers.get("authorization", "")):
            return Response(status_code=401, headers={"www-authenticate": 'Bearer realm="switchboard"'})
        return Response(exposition(), headers={**_NO_STORE, "content-type": CONTENT_TYPE})

    async def live(_request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    async def ready(_request: Request) -> Response:
        name, said = work()
        parts = {name: said, "postgres": await _postgres(pool)}
        well = all(said == "ok" for said in parts.values())
        body = {"status": "ok" if well else "unavailable", "parts": parts}
        return JSONResponse(body, 200 if well else 503, headers=_NO_STORE)

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/health/live", live), Route("/health/ready", ready)],
    )


def lease_of(worker: LeaseWorker) -> Work:
    def lease() -> tuple[str, str]:
        if worker.draining:
            return "lease", "given up: draining"
        return "lease", "ok" if worker.has_lease else "none"

    return lease


async def _postgres(pool: Pool) -> str:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await pool.fetchval("SELECT 1")
    except (Unavailable, TimeoutError):
        return "cannot be reached"
    return "ok"
