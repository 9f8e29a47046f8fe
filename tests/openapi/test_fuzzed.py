"""Both running applications keep what their documents say, whatever they are sent."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from tests.conftest import Database
from tests.dead.graveyard import bury
from tests.keys import give_key
from tests.openapi.fuzzing import Stack, running, schemathesis

KEY = "sk-fuzzing"
TENANT, CODE = "acme", "upstream_unavailable"


@pytest.fixture
async def stack(redis_url: str, database: Database, standin: Standin, tmp_path: Path) -> AsyncIterator[Stack]:
    """With a key that opens everything, and no limits."""
    owner = await asyncpg.connect(database.owner)
    await give_key(owner, TENANT, KEY, ["chat", "admin", "operator"])
    await owner.execute("UPDATE tenants SET settings = '{\"unlimited\": true}' WHERE tenant_id = $1", TENANT)
    await owner.close()
    settings = Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "secret": "a secret of tests, long enough",
            "long_poll_max_s": 1,
            "sse_keepalive_s": 0.5,
            "log_level": "ERROR",
            "unauthorized_per_min": 1_000_000,  # it tries keys that are none, and expects 401
        }
    )
    async with running(settings, KEY, tmp_path) as started:
        yield started


async def test_the_ingress_keeps_its_document(stack: Stack, tmp_path: Path) -> None:
    await expect_clean(stack.ingress, tmp_path)


async def test_the_console_keeps_its_document(stack: Stack, database: Database, tmp_path: Path) -> None:
    buried = [
        await bury(database.app, tenant=TENANT, state=state, code=CODE) for state in ("dead", "expired", "rejected") * 5
    ]
    known = {"query.tenant": [TENANT], "query.agent": ["support"], "query.error_code": [CODE], "path.job_id": buried}
    await expect_clean(stack.console, tmp_path, known=known)


async def expect_clean(url: str, folder: Path, *, known: Mapping[str, list[str]] | None = None) -> None:
    if report := await schemathesis(url, KEY, folder, max_examples=15, known=known or {}):
        pytest.fail(report, pytrace=False)
