"""Wiring of memory's tasks in a delivery process: they belong to all tenants, and its role sees them all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from shared import keys
from shared.budgets import DeploymentBudgets
from shared.config import Settings
from shared.db import Pool
from shared.errors import ConfigError
from shared.redis import Commands
from workers.background.money import Clerk, Till
from workers.background.runner import Runner
from workers.background.tasks import TaskStore
from workers.erasure.subjects import Subjects
from workers.ledger import prices, tokens
from workers.ledger.purse import Purse
from workers.ledger.recount import Recount
from workers.models.catalog import close_models, open_models
from workers.routing.route import reachable
from workers.turn.calling import Providers
from workers.turn.late import LateRows
from workers.turn.spending import Money
from workers.turn.store import TurnStore

log = structlog.get_logger("memory")


@contextlib.asynccontextmanager
async def memory_minded(settings: Settings, commands: Commands, pool: Pool, subjects: Subjects) -> AsyncIterator[None]:
    """Tasks are worked off while the block lasts; `pool` is of the role switchboard_ops."""
    clerk = Clerk(settings.memory_models.split(","))
    if settings.memory_tasks == 0:
        yield
        return
    async with contextlib.AsyncExitStack() as stack:
        models = await asyncio.to_thread(open_models, settings)  # deliveries and probes are served meanwhile
        stack.push_async_callback(close_models, models)
        try:
            reachable(clerk.models, models)
        except ConfigError as error:
            log.warning("memory.unreachable", fault=str(error))
            yield
            return
        await asyncio.to_thread(tokens.load, *(spec.partition(":")[2] for spec in clerk.models))
        store = TurnStore(pool, subjects)
        money = await stack.enter_async_context(_opened_money(settings, commands, pool, store))
        till = Till(commands, money, store, Providers.of(settings, models), clerk)
        running = asyncio.create_task(Runner(settings, TaskStore(pool), till).run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])


@contextlib.asynccontextmanager
async def _opened_money(settings: Settings, commands: Commands, pool: Pool, store: TurnStore) -> AsyncIterator[Money]:
    recount = Recount(commands, pool, lease_s=settings.lease_s)
    late = LateRows(commands, store, lease_s=settings.lease_s)
    purse = Purse(commands, keys.BACKGROUND)
    price_list = await asyncio.to_thread(prices.shipped)
    try:
        yield Money(price_list, DeploymentBudgets.of(settings), purse, recount.opened, late)
    finally:
        await late.aclose()
        await recount.aclose()
