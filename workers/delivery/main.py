"""Wiring of a delivery process: settings in, replies and alerts out, memory written. Called by `switchboard delivery`.

It needs the role switchboard_ops: deliveries of all tenants wait in one table, and so does what memory has to take in.
It asks Redis at its start, tells it where its numbers are, and hears from it of work that has begun; it sends on while
Redis is away.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import structlog
import uvloop

from shared import deployment, telemetry
from shared.budgets import DeploymentBudgets
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.errors import ConfigError
from shared.redis import Commands, check_server, connect
from shared.telemetry.metrics import vitals
from sql import queries
from workers.alerts.judge import Judge
from workers.alerts.watch import watch
from workers.background.opened import memory_minded
from workers.delivery.books import DeliveryBooks, lease_s
from workers.delivery.courier import Courier
from workers.delivery.forget import keep_forgetting
from workers.delivery.mail import Mailer
from workers.delivery.post import Poster
from workers.delivery.resolve import Lookup, Resolver
from workers.delivery.send import Sender
from workers.delivery.signing import Signer
from workers.embeddings.upkeep import embedding
from workers.erasure.subjects import Subjects
from workers.memory.writer import writing
from workers.probes import serving
from workers.replies.books import PartBooks
from workers.replies.opened import Channels
from workers.replies.provider import Provider
from workers.replies.sender import ReplySender
from workers.replies.working import Typist
from workers.scrape import announced

log = structlog.get_logger("delivery")

NAME = "delivery"
"""Of these processes among the scrape targets, where workers have their queue's."""


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; the process's exit code. Raises ConfigError or Unavailable at start."""
    telemetry.configure(settings)
    uvloop.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    async with open_courier(settings) as courier:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, courier.leave)
        log.info("delivery.ready", slots=settings.delivery_concurrency)
        await courier.run()
    await telemetry.flush()


@contextlib.asynccontextmanager
async def open_courier(settings: Settings, *, lookup: Lookup | None = None) -> AsyncIterator[Courier]:
    """A courier with everything it needs; alerts are judged and old rows forgotten while the block lasts."""
    async with contextlib.AsyncExitStack() as stack:
        commands = Commands(connect(settings.redis_url, max_connections=4))
        stack.push_async_callback(commands.aclose)
        for fault in await check_server(commands.redis, production=settings.environment == "production"):
            log.warning("redis.unsafe", fault=fault)
        pool = await _all_seeing_pool(settings)
        stack.push_async_callback(pool.close)
        mine = await deployment.claim(commands, pool, settings.environment)
        signer, subjects = Signer.of(settings, mine.id), Subjects.of(settings, mine.id)
        resolver = Resolver(
            allow_private=settings.delivery_allow_private, threads=settings.delivery_concurrency, lookup=lookup
        )
        stack.callback(resolver.close)
        sender = _sender(stack, settings, signer, _replies(stack, settings, pool), resolver)
        courier = Courier(_books(settings, pool), sender, resolver.rest, slots=settings.delivery_concurrency)
        await stack.enter_async_context(vitals(lambda: [commands], lambda: [pool]))
        address = await stack.enter_async_context(serving(settings, lambda: ("courier", courier.state), pool))
        await stack.enter_async_context(announced(commands, NAME, address))
        await stack.enter_async_context(memory_minded(settings, commands, pool, subjects))
        if settings.memory_writer:
            await stack.enter_async_context(writing(pool))
            await stack.enter_async_context(embedding(settings, commands, pool, subjects))
        typist = Typist(commands, pool, Channels(settings))
        stack.push_async_callback(typist.aclose)
        beside = [
            asyncio.create_task(watch(pool, Judge(pool, DeploymentBudgets.of(settings)))),
            asyncio.create_task(typist.run()),
            asyncio.create_task(keep_forgetting(pool, settings.delivery_retention_days)),
        ]
        try:
            yield courier
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)


async def _all_seeing_pool(settings: Settings) -> Pool:
    pool = await open_pool(
        settings.ops_database_url or settings.database_url,
        settings.db_pool_size,
        environment=settings.environment,
        prepared_statements=settings.db_prepared_statements,
    )
    if not await pool.fetchval(queries["sees_all_tenants"]):
        await pool.close()
        raise ConfigError(
            "deliveries belong to all tenants: set SWITCHBOARD_OPS_DATABASE_URL to the role switchboard_ops"
        )
    return pool


def _books(settings: Settings, pool: Pool) -> DeliveryBooks:
    return DeliveryBooks(
        pool,
        per_receiver=settings.delivery_per_receiver,
        per_channel=settings.delivery_per_channel,
        timeout_s=settings.delivery_timeout_s,
        give_up_days=settings.delivery_give_up_days,
    )


def _replies(stack: contextlib.AsyncExitStack, settings: Settings, pool: Pool) -> ReplySender:
    provider = Provider(timeout_s=settings.delivery_timeout_s)
    stack.push_async_callback(provider.aclose)
    return ReplySender(Channels(settings), PartBooks(pool, lease_s=lease_s(settings.delivery_timeout_s)), provider)


def _sender(
    stack: contextlib.AsyncExitStack, settings: Settings, signer: Signer, replies: ReplySender, resolver: Resolver
) -> Sender:
    timeout_s, private = settings.delivery_timeout_s, settings.delivery_allow_private
    poster = Poster(resolver, timeout_s=timeout_s, allow_private=private)
    stack.push_async_callback(poster.aclose)
    mailer = Mailer(settings.smtp_url, sender=settings.alert_from, timeout_s=settings.delivery_timeout_s)
    stack.callback(mailer.close)
    return Sender(poster, mailer, signer, replies)
