"""Rules, calls and jobs in a database of the test's own; the judge, and the delivery process where messages matter."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from shared.budgets import DeploymentBudgets
from shared.db import Pool, open_pool
from shared.ids import uuid7
from sql import queries
from tests.conftest import Database
from tests.delivery.conftest import books, owe, receiver, running, settings  # noqa: F401 - fixtures
from tests.sql.shapes import a_failed_call, a_turn
from workers.alerts.judge import Judge

NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)
DOLLAR = 1_000_000_000

Spend = Callable[..., Awaitable[None]]
SetRule = Callable[..., Awaitable[None]]
EndJobs = Callable[..., Awaitable[None]]


@pytest.fixture
async def ops(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.ops, 4, environment="production")
    yield pool
    await pool.close()


@pytest.fixture
def judge(ops: Pool) -> Judge:
    return Judge(ops, DeploymentBudgets(day_nano_usd=50 * DOLLAR))


@pytest.fixture
def set_rule(books: asyncpg.Connection) -> SetRule:  # noqa: F811 - the fixture
    """`await set_rule("error_rate", "0.05", tenant="*")`; its name is the metric."""

    async def put(metric: str, *thresholds: str, tenant: str = "acme", name: str | None = None, **more: Any) -> None:
        targets = more.pop("targets", [{"kind": "slack", "to": "http://127.0.0.1:9/slack"}])
        rule = {"metric": metric, "thresholds": thresholds, "targets": targets, **more}
        args = (tenant, name or metric.replace("_", "-"), json.dumps(rule), "test", 50)
        assert await books.fetchval(queries["put_alert"], *args) is not None

    return put


@pytest.fixture
def spend(books: asyncpg.Connection) -> Spend:  # noqa: F811 - the fixture
    """`await spend(5 * DOLLAR, user="u1", at=NOW)`: one call in the ledger."""

    async def add(
        nano_usd: int,
        *,
        tenant: str = "acme",
        user: str | None = "u1",
        conversation: str = "c1",
        at: datetime = NOW - timedelta(minutes=1),
        tokens: int = 10,
    ) -> None:
        turn = a_turn(user_id=user, conversation_id=conversation)
        call_id = _id_at(at)
        call = a_failed_call(
            turn, call_id=call_id, status="ok", cost_nano_usd=nano_usd, input_tokens=tokens, output_tokens=0
        )
        assert await books.fetchval(queries["end_attempt"], tenant, json.dumps([call])) == 1
        await books.execute(
            "INSERT INTO conversations (tenant_id, conversation_id, user_id, created_at, updated_at) "
            "VALUES ($1, $2, $3, $4, $4) ON CONFLICT DO NOTHING",
            *(tenant, conversation, user, at),
        )

    return add


def _id_at(at: datetime) -> str:
    """A UUIDv7 of that moment."""
    milliseconds = f"{int(at.timestamp() * 1_000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}{uuid7()[13:]}"


@pytest.fixture
def end_jobs(books: asyncpg.Connection) -> EndJobs:  # noqa: F811 - the fixture
    """`await end_jobs(20, failed=3, took_s=2.0)`: jobs that ended a minute before `at`."""

    async def end(
        many: int,
        *,
        failed: int = 0,
        took_s: float = 1.0,
        tenant: str = "acme",
        at: datetime = NOW,
        users: int = 1,
    ) -> None:
        finished_us = int((at - timedelta(minutes=1)).timestamp() * 1_000_000)
        error = {"code": "x", "message": "y", "retryable": False}
        for number in range(many):
            dead = {"state": "dead", "reply": None, "error": error} if number < failed else {}
            turn = a_turn(
                job_id=_id_at(at - timedelta(minutes=1, seconds=took_s)),
                user_id=f"u{number % users}",
                conversation_id=f"j{number % users}",
                created_us=finished_us - round(took_s * 1_000_000),
                started_us=finished_us - 1,
                finished_us=finished_us,
                **dead,
            )
            await books.fetchrow(queries["commit_turn"], tenant, json.dumps(turn))

    return end


async def events(books: asyncpg.Connection) -> list[tuple[str, str, str, str]]:  # noqa: F811 - not the fixture
    """Name, scope, period and threshold of what was told, in order."""
    rows = await books.fetch("SELECT name, scope, period, threshold FROM alert_events ORDER BY event_id")
    return [(row["name"], row["scope"], row["period"], f"{row['threshold'].normalize():f}") for row in rows]
