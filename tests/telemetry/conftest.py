"""A deployment in this process (ingress, workers, console on demand), and what it writes to standard output."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from ops.stack.standin import Standin
from shared import telemetry
from shared.config import Settings
from tests.conftest import Database
from tests.ingress.harness import Running, started
from tests.keys import give_key
from tests.turn.deployment import TENANT, Deployment

KEYS = {"sk-tenant-a": (TENANT, ["chat"]), "sk-operator": ("house", ["operator"])}
TOKEN = "a-token-of-the-scraper"


@dataclass
class Lines:
    """What stands on standard output so far."""

    capture: pytest.CaptureFixture[str]
    _seen: str = ""

    @property
    def text(self) -> str:
        self._seen += self.capture.readouterr().out
        return self._seen

    def all(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if event in (None, line["event"])]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    telemetry.configure(Settings.read({"log_format": "json", "log_level": "DEBUG"}))
    yield Lines(capsys)
    telemetry.configure(Settings.read({}))


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    """Short waits, and everything that is logged."""
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "secret": "a secret of tests, long enough",
            "retry_base_s": 0.01,
            "drain_s": 1.0,
            "cache_ttl_s": 0,
            "worker_concurrency": 100,
            "log_format": "json",
            "log_level": "DEBUG",
            "metrics_token": TOKEN,
        }
    )


@pytest.fixture
async def deployment(settings: Settings, database: Database, standin: Standin) -> AsyncIterator[Deployment]:
    async with Deployment.open(settings, database, standin) as opened:
        connection = await asyncpg.connect(database.owner)
        for key, (tenant, scopes) in KEYS.items():
            await give_key(connection, tenant, key, scopes)
        await connection.close()
        yield opened


@pytest.fixture
async def ingress(settings: Settings, deployment: Deployment, lines: Lines) -> AsyncIterator[Running]:
    async with started(settings) as running:
        yield running
