"""A delivery process inside the test, on a database of its own, and jobs that owe somebody something."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from shared.config import Settings
from sql import queries
from tests.conftest import Database, _eventually
from tests.delivery.receiver import Receiver, receiving
from tests.sql.shapes import a_turn
from workers.delivery.books import Claimed, DeliveryBooks
from workers.delivery.courier import Courier
from workers.delivery.main import open_courier
from workers.delivery.resolve import Lookup

TENANT = "acme"
Running = Callable[..., AbstractAsyncContextManager[Courier]]
Owe = Callable[..., Awaitable[str]]


@pytest.fixture
def settings(redis_url: str, database: Database) -> Settings:
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "secret": "a secret of tests, long enough",
            "delivery_allow_private": True,
            "delivery_timeout_s": 30.0,
        }
    )


@pytest.fixture
async def books(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """As superuser: sees every tenant. `acme` and `other` are there."""
    connection = await asyncpg.connect(database.superuser)
    await connection.execute("INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'Acme'), ('other', 'Other')")
    yield connection
    await connection.close()


@pytest.fixture
def running(settings: Settings, books: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> Running:
    """`async with running(delivery_timeout_s=1.0)`: a courier at work; it leaves at the end."""

    monkeypatch.setattr("workers.delivery.courier.TIDY_EVERY_S", 0.0)  # a look has seen everything there is to see

    @asynccontextmanager
    async def run(lookup: Lookup | None = None, **overrides: Any) -> AsyncIterator[Courier]:
        async with open_courier(settings.model_copy(update=overrides), lookup=lookup) as courier:
            task = asyncio.create_task(courier.run())
            try:
                yield courier
            finally:
                courier.leave()
                await asyncio.wait([task])
                task.result()

    return run


@pytest.fixture
def owe(books: asyncpg.Connection) -> Owe:
    """`await owe(url, conversation="c1")`: a job ends, as the workers end it; its id."""

    async def end(url: str | None, *, conversation: str = "c1", tenant: str = TENANT, **fields: Any) -> str:
        turn = a_turn(callback_url=url, conversation_id=conversation, user_id=None, **fields)
        await books.fetchrow(queries["commit_turn"], tenant, json.dumps(turn))
        job_id: str = turn["job_id"]
        return job_id

    return end


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


class Looks:
    """How often processes have asked for work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        original = DeliveryBooks.claim

        async def claim(books: DeliveryBooks, slots: int, busy: Mapping[str, int]) -> list[Claimed]:
            found = await original(books, slots, busy)
            self.made += 1
            return found

        monkeypatch.setattr(DeliveryBooks, "claim", claim)

    async def more(self, times: int) -> None:
        """Until they have asked so many times more: what could be claimed then was."""
        wanted = self.made + times
        await _eventually(lambda: self.made >= wanted)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


async def states(books: asyncpg.Connection) -> list[str]:
    """Of all deliveries, as they were made."""
    return [row["state"] for row in await books.fetch("SELECT state FROM deliveries ORDER BY sequence, delivery_id")]


async def earlier(books: asyncpg.Connection, seconds: float) -> None:
    """Time passes: everything that was noted was so much longer ago."""
    span = f"interval '{seconds} seconds'"
    await books.execute(
        f"UPDATE deliveries SET due_at = due_at - {span}, first_failed_at = first_failed_at - {span}, "  # noqa: S608
        f"lease_until = lease_until - {span}"
    )
    await books.execute(
        f"UPDATE receivers SET open_until = open_until - {span}, failing_since = failing_since - {span}"  # noqa: S608
    )
    await books.execute(f"UPDATE signing_secrets SET retires_at = retires_at - {span}")  # noqa: S608
