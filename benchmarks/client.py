"""The accepting side: a message becomes a job, through arq's client or through our admission."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from arq.connections import ArqRedis

from benchmarks.subject import PLAIN_FUNCTION, CountingConnection, Subject
from shared.config import Settings
from shared.ids import uuid7
from shared.redis import Commands, connect
from shared.scripts import Intake
from shared.wire import TurnPayload

AT_ONCE = 64
"""Jobs under way at the same time while a backlog is made."""
TTL_S = 600


class Client(Protocol):
    async def send(self, message: str, conversation: str) -> str:
        """Accept one job; its id."""


class ArqClient:
    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis

    async def send(self, message: str, conversation: str) -> str:
        job = await self._redis.enqueue_job(PLAIN_FUNCTION, message)
        assert job is not None, "the job id was taken"
        return job.job_id


class TurnClient:
    def __init__(self, intake: Intake, tenant: str) -> None:
        self._intake = intake
        self._tenant = tenant

    async def send(self, message: str, conversation: str) -> str:
        payload = TurnPayload(
            job_id=uuid7(),
            tenant=self._tenant,
            agent="support",
            conversation_id=conversation,
            user_id=conversation,
            message=message,
        )
        admission = await self._intake.admit(payload, ttl_s=TTL_S, enqueued_ms=time.time_ns() // 1_000_000)
        assert admission.outcome == "accepted", admission
        return admission.job_id


@asynccontextmanager
async def open_client(subject: Subject, url: str, tenant: str = "bench") -> AsyncIterator[Client]:
    """A client whose sends are counted (`CountingConnection.sends`)."""
    redis = connect(url, max_connections=AT_ONCE)
    CountingConnection.count(redis.connection_pool)
    if subject is Subject.TURNS:
        commands = Commands(redis)
        yield TurnClient(Intake(commands, Settings.read({"redis_url": url})), tenant)
        await commands.aclose()
    else:
        yield ArqClient(ArqRedis(pool_or_conn=redis.connection_pool))
    await redis.aclose(close_connection_pool=True)


async def fill(client: Client, messages: Sequence[str], *, conversation_jobs: int = 1) -> list[str]:
    """Accept one job per message, `conversation_jobs` of them in turn per conversation; their ids."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def send(number: int, message: str) -> str:
        async with gate:
            return await client.send(message, f"c{number // conversation_jobs}")

    return list(await asyncio.gather(*(send(number, message) for number, message in enumerate(messages))))
