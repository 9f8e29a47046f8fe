"""Builds the worker of a chat queue: our settings in arq's words."""

from collections.abc import Awaitable, Callable
from typing import Any

from arq.connections import ArqRedis
from arq.worker import func
from redis.asyncio import Redis

from shared import keys
from shared.config import Settings
from shared.wire import TURN_FUNCTION
from workers.queue import codec
from workers.queue.attempt import ENDLESS_S
from workers.queue.scripts import Claimed
from workers.queue.verdicts import Ended, Verdict
from workers.queue.worker import LeaseWorker

ENDLESS_TRIES = 1_000_000
"""A turn counts its own attempts: the last one must still run to end its job in Postgres."""
POLL_S = 1.0
"""How often an idle worker looks by itself; tokens and due times bring everything sooner."""


def chat_worker(
    redis: Redis,
    settings: Settings,
    *,
    turn: Callable[..., Awaitable[Verdict]],
    unrunnable: Callable[[Claimed, str], Awaitable[Ended]],
    on_ends_waiting: Callable[[], Awaitable[None]],
) -> LeaseWorker:
    """A worker on `redis` for `settings.queue`; it owns and closes the pool."""
    queue = keys.queue(settings.queue)

    # a turn bounds its own answer; waiting for Postgres must not be mistaken for a job that hangs
    async def run_turn(ctx: dict[Any, Any], **kwargs: Any) -> Verdict:
        return await turn(ctx, **kwargs)

    return LeaseWorker(
        [func(run_turn, name=TURN_FUNCTION, max_tries=ENDLESS_TRIES, timeout=ENDLESS_S)],
        queue_name=queue,
        redis_pool=ArqRedis(
            pool_or_conn=redis.connection_pool,
            job_serializer=codec.encode,
            job_deserializer=codec.decode,
            default_queue_name=queue,
        ),
        job_serializer=codec.encode,
        job_deserializer=codec.decode,
        max_jobs=settings.worker_concurrency,
        poll_delay=POLL_S,
        job_completion_wait=max(1, round(settings.drain_s)),
        log_results=False,
        log_args=False,
        lease_s=settings.lease_s,
        max_events=settings.max_events,
        result_ttl_s=settings.result_ttl_s,
        unrunnable=unrunnable,
        on_ends_waiting=on_ends_waiting,
    )
