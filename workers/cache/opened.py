"""The cache of a worker process, on the server that the settings name. Called by the wiring; closed with the worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.config import Settings
from shared.redis import Commands, connect
from workers.cache.flight import Cache
from workers.cache.room import Room
from workers.cache.store import AnswerStore

PATIENCE_S = 1.0
"""Longer than that nobody waits for a server of its own; for the queue's, a turn waits anyway."""


@asynccontextmanager
async def open_cache(settings: Settings, queue: Commands, *, deployment: str) -> AsyncIterator[Cache | None]:
    """None where the deployment wants no cache. `queue` is the way to the queue's Redis.

    A server of its own is not connected to before the first question, and need not be there.
    """
    if settings.cache_ttl_s == 0:
        yield None
        return
    own = None
    if settings.cache_redis_url is not None:
        own = Commands(connect(settings.cache_redis_url, max_connections=2), timeout_s=PATIENCE_S)
    store = AnswerStore(
        own or queue,
        stale_s=settings.cache_stale_s,
        max_bytes=settings.cache_max_bytes,
        lease_s=settings.lease_s,
        room=Room(queue) if own is None else None,
    )
    cache = Cache(store, deployment=deployment, ttl_s=settings.cache_ttl_s)
    try:
        yield cache
    finally:
        await cache.aclose()
        if own is not None:
            await own.aclose()
