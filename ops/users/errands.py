"""Erasures that this process works on: whoever asked waits a while for the end, the work goes on without them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from ops.users.books import Erasure, UserBooks
from ops.users.erasing import Eraser
from ops.users.flight import Flight
from ops.users.whom import Whom
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.deployment import of_database
from shared.errors import Unavailable
from shared.redis import Commands, connect
from sql import queries

log = structlog.get_logger("erasure")

CONNECTIONS = 2
"""Of an eraser whose caller has none that may erase."""


class Errands:
    def __init__(self, books: UserBooks, eraser: Eraser) -> None:
        self._books, self._eraser = books, eraser
        self._under_way: set[asyncio.Task[None]] = set()

    async def erase_user(self, tenant: str, user: str, by: str, *, within_s: float) -> Erasure:
        """How it stands when it is done, or after `within_s`. Raises Unavailable when it could not be begun."""
        known = await self._books.conversations_of(tenant, user)
        return await self._erase(Whom(tenant=tenant, user=user, conversations=known), by, within_s)

    async def erase_conversation(self, tenant: str, conversation: str, by: str, *, within_s: float) -> Erasure:
        return await self._erase(Whom(tenant=tenant, user=None, conversations=[conversation]), by, within_s)

    async def _erase(self, whom: Whom, by: str, within_s: float) -> Erasure:
        request = await self._eraser.begin(whom, by)
        task = asyncio.create_task(self._finish(whom, request, by))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait([task], timeout=within_s)
        return await self._books.erasure(whom.tenant, request)

    async def _finish(self, whom: Whom, request: str, by: str) -> None:
        try:
            await self._eraser.finish(whom, request, by)
        except Unavailable as error:  # whoever looks for erasures that nobody works on goes on with it
            log.warning("erasure_waits", of=whom.tenant, erasure=request, fault=str(error))
        except Exception:
            log.exception("erasure_failed", of=whom.tenant, erasure=request)

    async def aclose(self) -> None:
        """What is not done yet is another process's, or the next one's."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)


@asynccontextmanager
async def erasing(settings: Settings, commands: Commands, pool: Pool) -> AsyncIterator[Eraser]:
    """An eraser with everything it needs, of the deployment that `pool` leads to.

    Erasing is for switchboard_ops: where `pool` is of the role that serves tenants, the eraser has a pool of its own.
    In a deployment that has not set `ops_database_url` it is refused (Forbidden).
    """
    known = await of_database(pool)
    async with AsyncExitStack() as closing:
        if settings.ops_database_url and not await pool.fetchval(queries["sees_all_tenants"]):
            pool = await open_pool(
                settings.ops_database_url,
                CONNECTIONS,
                environment=settings.environment,
                prepared_statements=settings.db_prepared_statements,
            )
            closing.push_async_callback(pool.close)
        cache: Commands | None = None
        if settings.cache_redis_url is not None:
            cache = Commands(connect(settings.cache_redis_url, max_connections=2))
            closing.push_async_callback(cache.aclose)
        yield Eraser.of(settings, known.id, pool, Flight(commands, cache))
