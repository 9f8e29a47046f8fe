"""The deployment of the turn's tests, with somebody who erases."""

from collections.abc import AsyncIterator

import pytest

from ops.users.erasing import Eraser
from ops.users.flight import Flight
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.deployment import of_database
from tests.conftest import Database
from tests.dead.conftest import console, deployment, desk, settings, with_keys  # noqa: F401 - fixtures of those tests
from tests.forgetting.searching import Everywhere
from tests.turn.deployment import Deployment


@pytest.fixture
async def ops_pool(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.ops, 4, environment="development")
    yield pool
    await pool.close()


@pytest.fixture
async def eraser(settings: Settings, deployment: Deployment, ops_pool: Pool) -> Eraser:  # noqa: F811 - the fixtures
    known = await of_database(ops_pool)
    return Eraser.of(settings, known.id, ops_pool, Flight(deployment.commands))


@pytest.fixture
def everywhere(deployment: Deployment) -> Everywhere:  # noqa: F811 - the fixture
    return Everywhere(deployment.books, deployment.commands.redis)
