"""The console as an ASGI application: routes, and what lives as long as the process.

`create_console` is called once per process (`switchboard console`, and the tests). Unlike the ingress it needs Postgres
at its start: without the books there is nothing to operate. Later outages of either server are 503s until it is back.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents import registry
from ingress.auth import ApiKeys
from ingress.problems import EXCEPTION_HANDLERS
from ingress.request_log import RequestLog
from ingress.responses import json_response
from ops.console.routes.dead import DeadJobResource, list_dead_jobs, retry_dead_job, retry_dead_jobs
from ops.console.routes.health import live, ready
from ops.console.routes.queues import list_queues, metrics
from ops.console.state import Console, KeyBooks
from ops.dead.desk import Desk
from shared import telemetry
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.redis import Commands, check_server, connect

log = structlog.get_logger(__name__)


async def index(_request: Request) -> Response:
    links = {
        "dead_jobs": "/v1/dead-jobs",
        "queues": "/v1/queues",
        "metrics": "/metrics",
        "live": "/health/live",
        "ready": "/health/ready",
    }
    return json_response({"name": "switchboard console", "version": version("switchboard"), "links": links})


ROUTES = [
    Route("/", index),
    Route("/health/live", live),
    Route("/health/ready", ready),
    Route("/metrics", metrics),
    Route("/v1/queues", list_queues),
    Route("/v1/dead-jobs", list_dead_jobs),
    Route("/v1/dead-jobs/retry", retry_dead_jobs, methods=["POST"]),
    Route("/v1/dead-jobs/{job_id}", DeadJobResource),
    Route("/v1/dead-jobs/{job_id}/retry", retry_dead_job, methods=["POST"]),
]


def create_console(settings: Settings) -> Starlette:
    """The application; what it needs is opened when the server starts its lifespan."""
    telemetry.configure(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with opened(settings) as console:
            app.state.console = console
            yield

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(RequestLog)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # as in ingress
    return app


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Console]:
    """Everything the routes share. Raises ConfigError or Unavailable with one line saying why it cannot start."""
    agents = registry.load()
    async with AsyncExitStack() as closing:
        commands = Commands(connect(settings.redis_url))
        closing.push_async_callback(commands.aclose)
        for fault in await check_server(commands.redis, production=settings.environment == "production"):
            log.warning("redis_unsafe", fault=fault)
        pool = await _pool(closing, settings.database_url, settings)
        ops_pool = await _pool(closing, settings.ops_database_url, settings) if settings.ops_database_url else pool
        keys = KeyBooks(pool)
        api_keys = ApiKeys(commands, keys, ttl_s=settings.key_cache_ttl_s)
        closing.push_async_callback(api_keys.aclose)
        of_all = await Desk.over(ops_pool, commands, settings, agents)
        if not of_all.books.sees_all:
            log.warning("one_tenant_at_a_time", cause="SWITCHBOARD_OPS_DATABASE_URL is not set to switchboard_ops")
        yield Console(
            settings=settings,
            commands=commands,
            api_keys=api_keys,
            keys=keys,
            queues=sorted({settings.queue, *(agent.queue for agent in agents.values())}),
            of_tenant=await Desk.over(pool, commands, settings, agents),
            of_all=of_all,
        )


async def _pool(closing: AsyncExitStack, dsn: str, settings: Settings) -> Pool:
    pool = await open_pool(dsn, settings.db_pool_size, environment=settings.environment)
    closing.push_async_callback(pool.close)
    return pool
