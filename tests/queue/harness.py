"""One queue on a real server, and ways to put jobs in and look at what becomes of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from arq.connections import ArqRedis
from arq.worker import func
from redis.asyncio import Redis

from shared import keys
from shared.config import Settings
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.redis import Commands, connect
from shared.scripts import Intake, read_events
from shared.wire import TURN_FUNCTION, TurnPayload
from workers.queue import codec
from workers.queue.scripts import Claimed, Finish, QueueScripts
from workers.queue.verdicts import Ended
from workers.queue.worker import LeaseWorker

TENANT = "acme"
QUEUE = keys.DEFAULT_QUEUE
NEVER_S = 3_600.0
"""A poll delay that no test lives to see: whatever starts a job then, it is not polling."""
AT_ONCE_S = 20.0
"""Before anything looks by itself (the watch of a queue after 30 s, the end of a lease of 60 s), and long for a machine
that is ten times too slow."""

Turn = Callable[[Claimed], Awaitable[object]]


@dataclass
class Bench:
    """The queue's tools. `settings` point at a flushed database."""

    settings: Settings
    commands: Commands
    redis: Redis
    intake: Intake
    started: list[str] = field(default_factory=list)
    """Ids of the attempts that began on `worker()`s, in order."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, redis_url: str) -> "AsyncIterator[Bench]":
        settings = Settings.read({"redis_url": redis_url})
        commands = Commands(connect(redis_url))
        yield cls(settings, commands, commands.redis, Intake(commands, settings))
        await commands.aclose()

    def scripts(self) -> QueueScripts:
        return QueueScripts(self.commands, QUEUE, in_progress_ms=60_000, max_events=100, result_ttl_s=60)

    async def accept(self, conversation: str = "c1", *, ttl_s: int = 3_600) -> str:
        """A chat job as ingress makes it; its id."""
        payload = TurnPayload(
            job_id=uuid7(), tenant=TENANT, agent="support", conversation_id=conversation, message="hello"
        )
        admission = await self.intake.admit(payload, ttl_s=ttl_s, enqueued_ms=0)
        assert admission.outcome == "accepted"
        return payload.job_id

    async def join(self, worker: str, *, lease_ms: int = 600_000) -> None:
        await self.scripts().beat(worker, lease_ms, "join")

    async def claim(self, worker: str, n: int = 100) -> list[Claimed]:
        """Claims as `worker`, which must have joined."""
        claims = await self.scripts().claim(worker, n)
        assert claims is not None
        return claims.jobs

    async def finish(self, job: Claimed, verb: Any, **how: Any) -> bool:
        """Ends a claimed job as its worker; whether it was still that worker's."""
        if verb == "end":
            how = {"fields": {"state": "succeeded"}, **how}
        (ours,), _ = await self.scripts().finish(job.worker, [Finish(job.id, job.claim, verb, **how)], 0)
        return ours

    async def kill(self, worker: str) -> None:
        """Its lease runs out, as after SIGKILL."""
        await self.redis.zadd(f"{QUEUE}:leases", {worker: 1}, xx=True)

    async def record(self, job_id: str) -> JobRecord:
        record = await self.intake.read(job_id)
        assert record is not None
        return record

    async def events(self, job_id: str, **how: int) -> list[tuple[int, str, str]]:
        """Number, type and data of what a job's readers are told."""
        _, events = await read_events(self.commands, job_id, **how)
        return [(event.seq, event.type, event.data) for event in events]

    async def attempts(self, job_id: str) -> int:
        """Attempts counted so far."""
        return (await self.record(job_id)).attempts

    def build(self, turn: Turn, **options: Any) -> LeaseWorker:
        """A worker whose turns are `turn(claimed)`; it does not poll unless told to."""

        async def run(ctx: dict[str, Any], **_payload: Any) -> object:
            self.started.append(ctx["job_id"])
            answer = await turn(ctx["claimed"])
            return Ended({"state": "succeeded"}) if answer is None else answer

        redis = connect(self.settings.redis_url, max_connections=32)
        pool = ArqRedis(pool_or_conn=redis.connection_pool, job_serializer=codec.encode, job_deserializer=codec.decode)
        how = {"max_jobs": 100, "poll_delay": NEVER_S, "lease_s": 60.0, "handle_signals": False, **options}
        return LeaseWorker(
            [func(run, name=TURN_FUNCTION, max_tries=100)],
            redis_pool=pool,
            job_serializer=codec.encode,
            job_deserializer=codec.decode,
            **how,
        )

    @contextlib.asynccontextmanager
    async def run(self, worker: LeaseWorker) -> AsyncIterator[LeaseWorker]:
        """Runs it, drains it and closes it."""
        running = asyncio.ensure_future(worker.async_run())
        try:
            yield worker
        finally:
            await worker.close()
            await asyncio.wait([running])
            assert running.cancelled() or running.exception() is None

    @contextlib.asynccontextmanager
    async def worker(self, turn: Turn, **options: Any) -> AsyncIterator[LeaseWorker]:
        async with self.run(self.build(turn, **options)) as worker:
            yield worker


def replace(target: object, **methods: Callable[..., Any]) -> None:
    """Puts wrapped methods in place of one object's own."""
    vars(target).update(methods)


async def nothing(_job: Claimed) -> None:
    """A turn that succeeds at once."""
