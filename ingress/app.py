"""The ingress as an ASGI application: routes, middleware, and what lives as long as the process.

`create_app` is called once per process (`switchboard ingress`, and the tests). Start needs a Redis that answers;
Postgres may come later. Everything opened here is closed here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from agents import registry
from ingress.archive import Archive
from ingress.auth import ApiKeys
from ingress.channels.directory import Channels
from ingress.channels.flows import exchange_flow
from ingress.channels.routes import Webhook
from ingress.connection import STATE
from ingress.direct import Direct
from ingress.notices import Notices
from ingress.openai.chat import create_chat_completion
from ingress.openai.models import get_model, list_models
from ingress.openai.responses import OneResponse, cancel_response, create_response, list_input_items
from ingress.openapi.operations import INGRESS
from ingress.openapi.serve import Published, docs, openapi_json
from ingress.plain import PlainMessages
from ingress.pressure import Pressure
from ingress.probes import live
from ingress.refusing import EXCEPTION_HANDLERS
from ingress.request_log import RequestLog
from ingress.routes.agents import index, list_agents
from ingress.routes.health import ready, stack
from ingress.routes.jobs import Job, job_events
from ingress.routes.messages import post_message
from ingress.routes.metrics import metrics
from ingress.state import Ingress
from ingress.strangers import Strangers
from ingress.tasks import stop
from ingress.tokens import ReadTokens
from shared import telemetry
from shared.budgets import DeploymentBudgets
from shared.config import Settings
from shared.redis import Commands, check_server, connect
from shared.scripts import Intake
from shared.telemetry.metrics import vitals

log = structlog.get_logger(__name__)

MESSAGES = Route("/v1/agents/{agent_id}/messages", post_message, methods=["POST"])
ROUTES = [  # looked through in this order: what is asked most stands first
    MESSAGES,
    Route("/v1/jobs/{job_id}", Job),
    Route("/v1/jobs/{job_id}/events", job_events),
    Route("/v1/responses", create_response, methods=["POST"]),
    Route("/v1/responses/{response_id}", OneResponse),
    Route("/v1/responses/{response_id}/cancel", cancel_response, methods=["POST"]),
    Route("/v1/responses/{response_id}/input_items", list_input_items),
    Route("/v1/chat/completions", create_chat_completion, methods=["POST"]),
    Route("/v1/models", list_models),
    Route("/v1/models/{model}", get_model),
    Route("/v1/channels/{channel_id}/webhook", Webhook),
    Route("/v1/channels/{channel_id}/flows", exchange_flow, methods=["POST"]),
    Route("/", index),
    Route("/openapi.json", openapi_json),
    Route("/docs", docs),
    Route("/health/live", live),
    Route("/health/ready", ready),
    Route("/health/stack", stack),
    Route("/metrics", metrics),
    Route("/v1/agents", list_agents),
]


def create_app(settings: Settings) -> Starlette:
    """The application; what it needs is opened when the server starts its lifespan."""
    telemetry.configure(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, PlainMessages]]:
        async with opened(settings) as ingress:
            app.state.ingress = ingress
            yield {STATE: PlainMessages(ingress, MESSAGES)}
        await telemetry.flush()

    app = _Application(routes=ROUTES, exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan)
    app.state.published = Published(INGRESS, ROUTES, settings)
    app.router.redirect_slashes = False  # a redirected POST would lose its body with many clients
    return app


class _Application(Starlette):
    """Without Starlette's outermost layer, which answers surprises: the request log does, and knows their id."""

    def build_middleware_stack(self) -> ASGIApp:
        routed = ExceptionMiddleware(self.router, handlers=EXCEPTION_HANDLERS)
        return RequestLog(Direct(MESSAGES, post_message, otherwise=routed))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Ingress]:
    """Everything the routes share. Raises ConfigError when it cannot work, with one line saying why."""
    agents = registry.load()
    async with AsyncExitStack() as closing:
        commands = Commands(connect(settings.redis_url))
        closing.push_async_callback(commands.aclose)
        for fault in await check_server(commands.redis, production=settings.environment == "production"):
            log.warning("redis_unsafe", fault=fault)
        archive = Archive(settings, commands)
        closing.push_async_callback(archive.aclose)
        await archive.start()
        api_keys = ApiKeys(commands, archive, ttl_s=settings.key_cache_ttl_s)
        closing.push_async_callback(api_keys.aclose)
        channels = Channels(commands, archive, settings)
        closing.push_async_callback(channels.aclose)
        notices, pressure = Notices(commands.redis), Pressure(commands)
        await closing.enter_async_context(_running([notices.run(), pressure.run(), archive.run()]))
        await closing.enter_async_context(vitals(lambda: [commands], archive.pools))
        yield Ingress(
            settings=settings,
            budgets=DeploymentBudgets.of(settings),
            commands=commands,
            intake=Intake(commands, settings),
            archive=archive,
            agents=agents,
            api_keys=api_keys,
            channels=channels,
            strangers=Strangers(commands, settings),
            tokens=ReadTokens(settings),
            notices=notices,
            pressure=pressure,
        )


@asynccontextmanager
async def _running(work: Iterable[Awaitable[Any]]) -> AsyncIterator[None]:
    """Background work for as long as the block lasts. It ends by itself only through a fault of ours: said loudly."""
    tasks = [asyncio.ensure_future(each) for each in work]
    for task in tasks:
        task.add_done_callback(_report_fault)
    try:
        yield
    finally:
        await stop(*tasks)


def _report_fault(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("background_task_died", exc_info=error)
