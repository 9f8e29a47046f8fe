"""Wiring of a chat worker process: settings in, a running worker out. Called by `switchboard worker`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cached_property

import structlog
import uvloop

from agents import registry
from agents.api import Agent
from shared import deployment, telemetry
from shared.budgets import DeploymentBudgets, Scope
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.errors import ConfigError
from shared.heap import settle_heap
from shared.redis import Commands, check_server, connect
from shared.telemetry.metrics import REGISTRY, vitals
from shared.wire import TurnPayload
from workers.cache.flight import Cache
from workers.cache.opened import open_cache
from workers.embeddings.query import QueryEmbedder, recollection
from workers.erasure.subjects import Subjects
from workers.ledger import prices, tokens
from workers.ledger.book import Amount
from workers.ledger.purse import Answer, Offer, Purse, Settlement
from workers.ledger.recount import Recount
from workers.maintenance.ends import EndsWriter
from workers.maintenance.inbox import InboxWriter
from workers.metrics import WorkerState, expect
from workers.models.catalog import OpenModel, close_models, open_models
from workers.probes import lease_of, serving
from workers.queue.scripts import Claimed
from workers.queue.start import chat_worker
from workers.queue.worker import LeaseWorker
from workers.replies.working import Begun
from workers.routing.route import reachable
from workers.scrape import announced
from workers.turn.late import LateRows
from workers.turn.run import TurnRunner
from workers.turn.spending import Money, Till
from workers.turn.store import TurnStore

log = structlog.get_logger("worker")


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; the process's exit code. Raises ConfigError or Unavailable at start."""
    telemetry.configure(settings)
    uvloop.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    async with open_worker(settings) as worker:
        settle_heap()
        log.info("worker.ready", queue=settings.queue, slots=worker.max_jobs)
        with contextlib.suppress(asyncio.CancelledError):  # how arq's worker ends on a signal
            await worker.async_run()


@contextlib.asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[LeaseWorker]:
    """A worker with everything it needs, ready to run; drained and closed at the end."""
    redis = connect(settings.redis_url, max_connections=64)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose, close_connection_pool=True)
        for fault in await check_server(redis, production=settings.environment == "production"):
            log.warning("redis.unsafe", fault=fault)
        pool = await open_pool(
            settings.database_url,
            settings.db_pool_size,
            environment=settings.environment,
            prepared_statements=settings.db_prepared_statements,
        )
        stack.push_async_callback(pool.close)
        commands = Commands(redis)
        stack.push_async_callback(commands.aclose)
        mine = await deployment.claim(commands, pool, settings.environment)
        agents = registry.load()
        expect(agents)
        models = open_models(settings)
        stack.push_async_callback(close_models, models)
        _check_models(agents, models)
        tokens.load(*(spec.partition(":")[2] for agent in agents.values() for spec in agent.models))
        cache = await stack.enter_async_context(open_cache(settings, commands, deployment=mine.id))
        desk = _Desk(cache, Begun(commands))
        store = TurnStore(pool, subjects := Subjects.of(settings, mine.id))
        desk.embedding = await stack.enter_async_context(recollection(settings, pool, prices.shipped()))
        money = await stack.enter_async_context(_open_money(settings, commands, pool, store, desk))
        worker = _wire(settings, commands, agents, models, desk, money, store, _drains(commands, pool, subjects, desk))
        await stack.enter_async_context(observed(settings, worker, commands, pool))
        stack.push_async_callback(worker.close)
        yield worker


@contextlib.asynccontextmanager
async def _open_money(
    settings: Settings, commands: Commands, pool: Pool, store: TurnStore, till: Till
) -> AsyncIterator[Money]:
    """What the worker needs to spend money; at the end it waits for rows that are still to be posted."""
    recount = Recount(commands, pool, lease_s=settings.lease_s)
    late = LateRows(commands, store, lease_s=settings.lease_s)
    await recount.start()
    recount.keep_open()
    try:
        yield Money(prices.shipped(), DeploymentBudgets.of(settings), till, recount.opened, late)
    finally:
        await late.aclose()
        await recount.aclose()


@contextlib.asynccontextmanager
async def observed(settings: Settings, worker: LeaseWorker, commands: Commands, pool: Pool) -> AsyncIterator[None]:
    """The worker's numbers and probes, for as long as the block lasts."""
    state = WorkerState(worker, settings.queue)
    REGISTRY.register(state)
    try:
        async with (
            vitals(lambda: [commands, *worker.commands], lambda: [pool]),
            serving(settings, lease_of(worker), pool) as address,
            announced(commands, settings.queue, address),
        ):
            yield
    finally:
        REGISTRY.unregister(state)


def _wire(
    settings: Settings,
    commands: Commands,
    agents: Mapping[str, Agent],
    models: Mapping[str, OpenModel],
    desk: "_Desk",
    money: Money,
    store: TurnStore,
    drain: Callable[[], Awaitable[None]],
) -> LeaseWorker:
    runner = TurnRunner(
        settings,
        agents=agents,
        models=models,
        money=money,
        store=store,
        desk=desk,
        commands=commands,
        leaving=lambda: desk.worker.leaving,
    )
    desk.worker = chat_worker(
        commands.redis, settings, turn=runner, unrunnable=runner.unrunnable, on_ends_waiting=drain
    )
    return desk.worker


def _drains(commands: Commands, pool: Pool, subjects: Subjects, desk: "_Desk") -> Callable[[], Awaitable[None]]:
    """Takes to Postgres what waits for it in Redis."""
    ends = EndsWriter(commands, pool, subjects, on_end=desk.ended)
    inbox = InboxWriter(commands, pool, subjects)

    async def drain() -> None:
        try:
            await ends.drain()
        finally:
            await inbox.drain()

    return drain


class _Desk:
    """`workers.turn`'s Desk and Till over the worker's queue."""

    worker: LeaseWorker

    def __init__(self, cache: Cache | None, begun: Begun) -> None:
        self.cache, self._begun = cache, begun
        self.embedding: QueryEmbedder | None = None

    async def reserve(
        self, job: Claimed, offers: Sequence[Offer], scopes: Sequence[Scope], *, seed: Amount | None = None
    ) -> Answer:
        return await self._purse.reserve(job, offers, scopes, seed=seed)

    async def settle(self, job: Claimed, settlements: Sequence[Settlement]) -> bool:
        return await self._purse.settle(job, settlements)

    @cached_property
    def _purse(self) -> Purse:
        return Purse(self.worker.scripts.commands, self.worker.scripts.queue)

    def say(self, job: Claimed, text: str) -> None:
        self.worker.emitter.text(job, text)

    async def take_back(self, job: Claimed) -> None:
        await self.worker.emitter.take_back(job)

    def begun(self, payload: TurnPayload) -> None:
        self._begun.tell(payload)

    async def ended(self, job_id: str, state: str) -> None:
        await self.worker.tell_of_unstarted(job_id, state)


def _check_models(agents: Mapping[str, Agent], models: Mapping[str, OpenModel]) -> None:
    """Says at start which agents cannot answer; they may never be asked."""
    for agent in agents.values():
        try:
            reachable(agent.models, models)
        except ConfigError as error:
            log.warning("agent.unreachable", agent=agent.id, fault=str(error))
