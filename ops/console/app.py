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
from ingress.openapi.serve import Published, docs, openapi_json
from ingress.probes import live
from ingress.refusing import EXCEPTION_HANDLERS
from ingress.request_log import RequestLog
from ingress.responses import json_response
from ingress.strangers import Strangers
from ops.alerts.books import AlertBooks
from ops.channels.books import ChannelBooks
from ops.console.load import Load
from ops.console.naming import Named
from ops.console.openapi.operations import CONSOLE
from ops.console.routes.alerts import AlertResource, list_alert_events, list_alerts, test_alert
from ops.console.routes.channels import (
    ChannelResource,
    ChannelsResource,
    list_kept,
    resume_channel,
    rotate_channel,
)
from ops.console.routes.dead import DeadJobResource, DeadJobsRetry, list_dead_jobs, retry_dead_job
from ops.console.routes.deliveries import (
    EndpointResource,
    EndpointsResource,
    get_delivery,
    list_deliveries,
    replay_delivery,
    rotate_default_secret,
    rotate_endpoint_secret,
)
from ops.console.routes.health import ready
from ops.console.routes.metrics import metrics, metrics_targets
from ops.console.routes.profiles import FactResource, FactsResource, ProfileResource
from ops.console.routes.queues import list_queues
from ops.console.routes.tenants import (
    KeyResource,
    KeysResource,
    TenantResource,
    TenantsResource,
    disable_tenant,
    enable_tenant,
    list_changes,
)
from ops.console.routes.users import UserResource, erase_conversation, export_user, get_erasure, list_users
from ops.console.state import Console, KeyBooks
from ops.console.upkeep import kept_up
from ops.dead.desk import Desk
from ops.deliveries.books import DeliveryBooks
from ops.deliveries.gate import Gate
from ops.profiles.books import ProfileBooks
from ops.tenants.books import TenantBooks
from ops.usage.books import UsageBooks
from ops.usage.route import show_usage
from ops.users.books import UserBooks
from ops.users.errands import Errands, erasing
from shared import deployment, telemetry
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.redis import Commands, check_server, connect
from shared.sealing import Sealer
from shared.telemetry.metrics import vitals

log = structlog.get_logger(__name__)


async def index(_request: Request) -> Response:
    links = {
        "dead_jobs": "/v1/dead-jobs",
        "queues": "/v1/queues",
        "tenants": "/v1/tenants",
        "channels": "/v1/channels",
        "usage": "/v1/usage",
        "endpoints": "/v1/endpoints",
        "deliveries": "/v1/deliveries",
        "alerts": "/v1/alerts",
        "alert_events": "/v1/alert-events",
        "users": "/v1/users",
        "metrics": "/metrics",
        "openapi": "/openapi.json",
        "docs": "/docs",
        "live": "/health/live",
        "ready": "/health/ready",
    }
    return json_response({"name": "switchboard console", "version": version("switchboard"), "links": links})


ROUTES = [
    Route("/", index),
    Route("/openapi.json", openapi_json),
    Route("/docs", docs),
    Route("/health/live", live),
    Route("/health/ready", ready),
    Route("/metrics", metrics),
    Route("/v1/metrics/targets", metrics_targets),
    Route("/v1/queues", list_queues),
    Route("/v1/dead-jobs", list_dead_jobs),
    Route("/v1/dead-jobs/retry", DeadJobsRetry),
    Route("/v1/dead-jobs/{job_id}", DeadJobResource),
    Route("/v1/dead-jobs/{job_id}/retry", retry_dead_job, methods=["POST"]),
    Route("/v1/tenants", TenantsResource),
    Route("/v1/tenants/{tenant_id}", TenantResource),
    Route("/v1/tenants/{tenant_id}/disable", disable_tenant, methods=["POST"]),
    Route("/v1/tenants/{tenant_id}/enable", enable_tenant, methods=["POST"]),
    Route("/v1/tenants/{tenant_id}/changes", list_changes),
    Route("/v1/tenants/{tenant_id}/keys", KeysResource),
    Route("/v1/keys/{key_id}", KeyResource),
    Route("/v1/channels", ChannelsResource),
    Route("/v1/channels/{channel_id}", ChannelResource),
    Route("/v1/channels/{channel_id}/rotate", rotate_channel, methods=["POST"]),
    Route("/v1/channels/{channel_id}/resume", resume_channel, methods=["POST"]),
    Route("/v1/channels/{channel_id}/kept", list_kept, methods=["GET"]),
    Named("/v1/users/{user_id}/profile", ProfileResource),
    Named("/v1/users/{user_id}/facts", FactsResource),
    Named("/v1/users/{user_id}/facts/{topic}", FactResource),
    Route("/v1/usage", show_usage),
    Route("/v1/endpoints", EndpointsResource),
    Route("/v1/endpoints/{endpoint_id}", EndpointResource),
    Route("/v1/endpoints/{endpoint_id}/rotate", rotate_endpoint_secret, methods=["POST"]),
    Route("/v1/webhook-secret/rotate", rotate_default_secret, methods=["POST"]),
    Route("/v1/deliveries", list_deliveries),
    Route("/v1/deliveries/{delivery_id}", get_delivery),
    Route("/v1/deliveries/{delivery_id}/replay", replay_delivery, methods=["POST"]),
    Route("/v1/alerts", list_alerts),
    Route("/v1/alerts/{name}", AlertResource),
    Route("/v1/alerts/{name}/test", test_alert, methods=["POST"]),
    Route("/v1/alert-events", list_alert_events),
    Route("/v1/users", list_users),
    Named("/v1/users/{user_id}", UserResource),
    Named("/v1/users/{user_id}/export", export_user),
    Named("/v1/conversations/{conversation_id}", erase_conversation, methods=["DELETE"]),
    Route("/v1/erasures/{erasure_id}", get_erasure),
]


def create_console(settings: Settings) -> Starlette:
    """The application; what it needs is opened when the server starts its lifespan."""
    telemetry.configure(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with opened(settings) as console:
            app.state.console = console
            yield
        await telemetry.flush()

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(RequestLog)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.state.published = Published(CONSOLE, ROUTES, settings)
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
        await deployment.claim(commands, pool, settings.environment)
        ops_pool = await _pool(closing, settings.ops_database_url, settings) if settings.ops_database_url else pool
        keys = KeyBooks(pool)
        api_keys = ApiKeys(commands, keys, ttl_s=settings.key_cache_ttl_s)
        closing.push_async_callback(api_keys.aclose)
        of_all = await Desk.over(ops_pool, commands, settings, agents)
        if not of_all.books.sees_all:
            log.warning("one_tenant_at_a_time", cause="SWITCHBOARD_OPS_DATABASE_URL is not set to switchboard_ops")
        names = sorted({settings.queue, *(agent.queue for agent in agents.values())})
        books = ops_pool if of_all.books.sees_all else None
        if books is not None:
            everybodys = await closing.enter_async_context(erasing(settings, commands, books))
            await closing.enter_async_context(kept_up(settings, books, everybodys))
        await closing.enter_async_context(vitals(lambda: [commands], lambda: [*{pool, ops_pool}]))
        users = UserBooks(pool)
        errands = Errands(users, await closing.enter_async_context(erasing(settings, commands, books or pool)))
        closing.push_async_callback(errands.aclose)
        gate = Gate(settings)
        closing.callback(gate.close)
        yield Console(
            settings=settings,
            commands=commands,
            api_keys=api_keys,
            strangers=Strangers(commands, settings),
            keys=keys,
            queues=names,
            load=Load(commands, names, settings, books=books),
            of_tenant=await Desk.over(pool, commands, settings, agents),
            of_all=of_all,
            tenants=TenantBooks(pool, books, commands, agents),
            channels=ChannelBooks(pool, books, commands, Sealer(settings.credentials_key.get_secret_value()), agents),
            profiles=ProfileBooks(pool),
            users=users,
            errands=errands,
            usage_of_tenant=await UsageBooks.over(pool),
            usage_of_all=await UsageBooks.over(ops_pool),
            deliveries_of_tenant=await DeliveryBooks.over(pool, settings, gate),
            deliveries_of_all=await DeliveryBooks.over(ops_pool, settings, gate),
            alerts_of_tenant=await AlertBooks.over(pool, settings, gate),
            alerts_of_all=await AlertBooks.over(ops_pool, settings, gate),
        )


async def _pool(closing: AsyncExitStack, dsn: str, settings: Settings) -> Pool:
    pool = await open_pool(
        dsn,
        settings.db_pool_size,
        environment=settings.environment,
        prepared_statements=settings.db_prepared_statements,
    )
    closing.push_async_callback(pool.close)
    return pool
