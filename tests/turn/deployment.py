"""Drives the product from inside one process, for tests that look at what a turn leaves behind."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import msgspec

from ops.stack.standin import Standin
from shared import keys
from shared.config import Settings, environment_name
from shared.errors import Unavailable
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.redis import Commands, connect
from shared.scripts import Admission, Idempotency, Intake
from shared.wire import TurnPayload
from tests.conftest import PATIENCE_S, Database
from tests.ledger.agreement import disagreements, read_counters
from workers.main import open_worker
from workers.queue.worker import LeaseWorker

TENANT = "acme"


def environment_of(settings: Settings) -> dict[str, str]:
    """What a child process needs to have the same settings."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    plain = {name: getattr(value, "get_secret_value", lambda value=value: value)() for name, value in given.items()}
    return os.environ | {environment_name(name): str(value) for name, value in plain.items()}  # noqa: TID251 - a child's


@dataclass
class Deployment:
    """An intake, the books, and workers on demand."""

    settings: Settings
    commands: Commands
    intake: Intake
    books: asyncpg.Connection
    """As superuser: sees every tenant."""
    standin: httpx.AsyncClient
    forgetful: bool = False
    """Redis lost its memory: it need not know every conversation."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, database: Database, standin: Standin) -> "AsyncIterator[Deployment]":
        commands = Commands(connect(settings.redis_url))
        books = await asyncpg.connect(database.superuser)
        await books.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, 'Acme')", TENANT)
        async with httpx.AsyncClient(base_url=standin.url) as client:
            opened = cls(settings, commands, Intake(commands, settings), books, client)
            try:
                yield opened
            finally:  # or what is left open fails another test
                await opened.books.close()
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
        how = {name: fields.pop(name) for name in ("policy", "merge_window_s") if name in fields}
        ttl_s = fields.pop("ttl_s", 600)
        payload = TurnPayload(
            job_id=uuid7(),
            tenant=fields.pop("tenant", TENANT),
            agent=fields.pop("agent", "support"),
            conversation_id=conversation,
            user_id=user,
            message=message,
            **fields,
        )
        admission: Admission = await self.intake.admit(
            payload, ttl_s=ttl_s, enqueued_ms=0, idempotency=Idempotency(), **how
        )
        assert admission.outcome == "accepted", admission
        return payload.job_id

    async def ended(self, job_id: str, timeout_s: float = PATIENCE_S) -> JobRecord:
        """The job's record once it is over."""
        async with asyncio.timeout(timeout_s):
            while True:
                record = await self.intake.read(job_id)
                assert record is not None
                if record.over:
                    return record
                await asyncio.sleep(0.005)

    async def ended_after_outage(self, job_id: str, timeout_s: float) -> JobRecord:
        """`ended`, by a caller that asks again while Redis is away."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await self.ended(job_id, timeout_s)
                except Unavailable:
                    await asyncio.sleep(0.05)

    async def hurry(self, job_id: str) -> None:
        """The time for which its retry waits is over."""
        queue = keys.queue("default")
        assert await self.commands.redis.zadd(f"{queue}:delayed", {job_id: 1}, xx=True, ch=True)
        await self.commands.redis.lpush(f"{queue}:wake", "1")

    async def end_leases(self) -> None:
        """Those of workers that were killed or frozen are over, as they would be in a while."""
        leases = f"{keys.queue('default')}:leases"
        for name in await self.commands.redis.zrange(leases, 0, -1):
            await self.commands.redis.zadd(leases, {name: 1}, xx=True)

    async def deltas(self, job_id: str) -> list[bytes]:
        """The pieces of text readers have seen, as JSON."""
        events = await self.commands.redis.xrange(keys.events(job_id))
        return [fields[b"d"] for _, fields in events if fields[b"t"] == b"message.delta"]

    async def reconnect_books(self, database: Database) -> None:
        self.books.terminate()
        self.books = await asyncpg.connect(database.superuser)

    async def rows(self, table: str, job_id: str) -> list[dict[str, Any]]:
        """Rows of a job, in the order they were made."""
        order = {"messages": "seq", "llm_calls": "call_id"}.get(table, "run")
        query = f"SELECT * FROM {table} WHERE job_id = $1 ORDER BY {order}"  # noqa: S608 - names come from tests
        return [dict(row) for row in await self.books.fetch(query, job_id)]

    async def give(self, *, max_tokens: int = 500, **budgets: Any) -> None:
        """The tenant's budgets from now on; what is not given is without limit. Replies have `max_tokens` at most."""
        free = {f"{name}_usd": "none" for name in ("user_month", "tenant_month", "conversation", "day")}
        document = {"max_tokens": max_tokens, "budgets": {**free, "tenant_month_tokens": "none", **budgets}}
        await self.books.execute(
            "UPDATE tenants SET settings = $2 WHERE tenant_id = $1", TENANT, msgspec.json.encode(document).decode()
        )

    async def ledger(self) -> list[dict[str, Any]]:
        """Every row, the oldest call first."""
        return [dict(row) for row in await self.books.fetch("SELECT * FROM llm_calls ORDER BY call_id")]

    async def check_money(self) -> None:
        """Every counter is the sum of its scope's ledger rows and nothing is held, once no call is open."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.commands.redis.keys("sb:calls:*"):
                await asyncio.sleep(0.01)
        counters = await read_counters(self.commands.redis)
        assert disagreements(counters, await self.ledger(), forgetful=self.forgetful) == []

    async def under_way(self, calls: int = 1) -> bool:
        """Whether the provider has so many calls before it now; `{"held": True}` keeps them there."""
        return bool((await self.served())["concurrency"] == calls)

    async def behave(self, *rules: dict[str, Any]) -> None:
        (await self.standin.post("/_behaviour", json=list(rules))).raise_for_status()

    async def served(self) -> dict[str, Any]:
        response = await self.standin.get("/_served")
        answer: dict[str, Any] = response.raise_for_status().json()
        return answer
