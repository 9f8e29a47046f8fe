"""Drives the product from inside one process, for tests that look at what a turn leaves behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx

from ops.stack.standin import Standin
from shared.config import Settings
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.redis import Commands, connect
from shared.scripts import Admission, Idempotency, Intake
from shared.wire import TurnPayload
from tests.conftest import Database
from workers.main import open_worker
from workers.queue.worker import LeaseWorker

TENANT = "acme"


@dataclass
class Deployment:
    """An intake, the books, and workers on demand."""

    settings: Settings
    commands: Commands
    intake: Intake
    books: asyncpg.Connection
    """As superuser: sees every tenant."""
    standin: httpx.AsyncClient

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, database: Database, standin: Standin) -> "AsyncIterator[Deployment]":
        commands = Commands(connect(settings.redis_url))
        books = await asyncpg.connect(database.superuser)
        await books.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, 'Acme')", TENANT)
        async with httpx.AsyncClient(base_url=standin.url) as client:
            yield cls(settings, commands, Intake(commands, settings), books, client)
        await books.close()
        await commands.aclose()

    @contextlib.asynccontextmanager
    async def worker(self, **overrides: Any) -> AsyncIterator[LeaseWorker]:
        """A running worker; it drains and leaves at the end."""
        settings = self.settings.model_copy(update=overrides)
        async with open_worker(settings) as worker:
            worker._handle_signals = False
            running = asyncio.ensure_future(worker.async_run())
            try:
                yield worker
            finally:
                await worker.close()
                await asyncio.wait([running])

    async def say(self, message: str, *, conversation: str = "c1", user: str | None = "u1", **fields: Any) -> str:
        """Accept a message; its job's id."""
        ttl_s = fields.pop("ttl_s", 600)
        payload = TurnPayload(
            job_id=uuid7(),
            tenant=TENANT,
            agent=fields.pop("agent", "support"),
            conversation_id=conversation,
            user_id=user,
            message=message,
            **fields,
        )
        admission: Admission = await self.intake.admit(payload, ttl_s=ttl_s, enqueued_ms=0, idempotency=Idempotency())
        assert admission.outcome == "accepted", admission
        return payload.job_id

    async def ended(self, job_id: str, timeout_s: float = 10.0) -> JobRecord:
        """The job's record once it is over."""
        async with asyncio.timeout(timeout_s):
            while True:
                record = await self.intake.read(job_id)
                assert record is not None
                if record.state.ended:
                    return record
                await asyncio.sleep(0.005)

    async def behave(self, *rules: dict[str, Any]) -> None:
        (await self.standin.post("/_behaviour", json=list(rules))).raise_for_status()

    async def served(self) -> dict[str, Any]:
        response = await self.standin.get("/_served")
        answer: dict[str, Any] = response.raise_for_status().json()
        return answer
