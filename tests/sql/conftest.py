"""Pools of each role on the test's own database."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
import pytest

from shared.db import Pool, jsonb, open_pool
from shared.jobs import JobRecord
from sql import queries


class Commit(Protocol):
    async def __call__(
        self, tenant: str, turn: dict[str, Any], *, query: str = "commit_turn"
    ) -> tuple[bool, JobRecord]: ...


@pytest.fixture
async def owner(database: Any) -> AsyncIterator[Pool]:
    pool = await open_pool(database.owner, 2, environment="development")
    yield pool
    await pool.close()


@pytest.fixture
async def app(database: Any) -> AsyncIterator[Pool]:
    pool = await open_pool(database.app, 12, environment="production")
    yield pool
    await pool.close()


@pytest.fixture
async def ops(database: Any) -> AsyncIterator[Pool]:
    pool = await open_pool(database.ops, 2, environment="production")
    yield pool
    await pool.close()


@pytest.fixture
def commit(app: Pool) -> Commit:
    async def run(tenant: str, turn: dict[str, Any], *, query: str = "commit_turn") -> tuple[bool, JobRecord]:
        row = await app.fetchrow(queries[query], tenant, jsonb(turn))
        assert row is not None
        return row["won"], msgspec.json.decode(row["record"], type=JobRecord)

    return run
