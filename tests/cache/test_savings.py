"""What the cache saves: in the ledger, in reports, in what callers are told, in the numbers; and nothing else moves."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from ops.usage.books import UsageBooks
from shared.config import Settings
from shared.db import open_pool
from shared.jobs import JobRecord, usd
from shared.telemetry.metrics import exposition
from sql import queries
from tests.conftest import Database, Eventually
from tests.stack.dev_process import REPOSITORY
from tests.telemetry.numbers import grown, numbers
from tests.turn.deployment import TENANT, Deployment, environment_of
from tests.usage.ledger import question

EVER = {"start": "2020-01-01", "to": "2100-01-01"}


@pytest.fixture
async def books(database: Database) -> AsyncIterator[UsageBooks]:
    pool = await open_pool(database.ops, 2, environment="production")
    yield await UsageBooks.over(pool)
    await pool.close()


@pytest.fixture
async def records(deployment: Deployment) -> list[JobRecord]:
    """Of thirty who ask three things of two agents at once, with a provider that fails now and then."""
    await deployment.behave({"match": "flaky", "faults": [{"status": 500}], "latency_ms": 50}, {"latency_ms": 50})
    async with deployment.worker(), deployment.worker():
        jobs = [
            await deployment.say(f"{text}?", conversation=f"{agent}-{n}-{text}", user=f"u{n}", agent=agent)
            for agent in ("support", "sales")
            for text in ("hello", "flaky", "price")
            for n in range(5)
        ]
        return [await deployment.ended(job_id) for job_id in jobs]


async def test_savings_are_in_the_report_and_the_cost_is_what_the_provider_booked(
    deployment: Deployment, books: UsageBooks, records: list[JobRecord]
) -> None:
    rows = await deployment.books.fetch("SELECT * FROM llm_calls")
    kept = [row for row in rows if row["status"] == "cached"]
    paid = [row for row in rows if row["status"] != "cached"]
    served = await deployment.served()
    report = await books.report(question(by="agent", **EVER))
    totals = report.totals
    assert served["calls"] == len(paid) == totals.calls - totals.cached_calls
    assert totals.cached_calls == len(kept) == 30 - 6, "each question was paid for once"
    assert totals.input_tokens == sum(model["input_tokens"] for model in served["by_model"].values())
    assert totals.output_tokens == sum(model["output_tokens"] for model in served["by_model"].values())
    assert totals.saved_nano_usd == sum(row["saved_nano_usd"] for row in kept) > 0
    assert totals.cost_nano_usd == sum(row["cost_nano_usd"] for row in paid)
    assert totals.cost_nano_usd == sum(record.cost_nano_usd or 0 for record in records)
    assert sum(line.figures.saved_nano_usd for line in report.lines) == totals.saved_nano_usd
    whole = {row["cost_nano_usd"] for row in paid if row["status"] == "ok"}
    assert {row["saved_nano_usd"] for row in kept} <= whole, "an answer saves what it had cost"
    assert totals.failed_calls == 1


async def test_a_job_says_that_its_reply_was_there_already_wherever_it_is_asked(
    deployment: Deployment, records: list[JobRecord]
) -> None:
    shown = [record.resource()["cache"] for record in records]
    assert (shown.count("exact"), shown.count(None)) == (24, 6)
    for record in records:
        raw = await deployment.books.fetchval(queries["job_record"], TENANT, record.id)
        assert msgspec.json.decode(raw, type=JobRecord) == record
        assert (record.cost_nano_usd == 0) == (record.cache == "exact")


@pytest.mark.usefixtures("records")
async def test_the_command_shows_what_was_saved(settings: Settings, database: Database, books: UsageBooks) -> None:
    async def usage(*options: str) -> str:
        arguments = [sys.executable, "-m", "ops", "usage", "report", "--by", "tenant", "--period", "month", *options]
        environment = {**environment_of(settings), "SWITCHBOARD_OPS_DATABASE_URL": database.ops}
        process = await asyncio.create_subprocess_exec(
            *arguments, cwd=REPOSITORY, env=environment, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out.decode()

    saved = usd((await books.report(question(**EVER))).totals.saved_nano_usd)
    heading, row = [line.split("\t") for line in (await usage()).splitlines()]
    assert dict(zip(heading, row, strict=True))["saved_usd"] == saved
    assert json.loads(await usage("--json"))["totals"]["saved_usd"] == saved


async def test_hits_misses_and_savings_are_counted(deployment: Deployment, eventually: Eventually) -> None:
    before = numbers(exposition().decode())

    def grew(name: str) -> float:
        found: float = grown(before, numbers(exposition().decode())).get(name, 0)
        return found

    async with deployment.worker():
        for n in range(3):
            job_id = await deployment.say("once", conversation=f"c{n}", user=f"u{n}", agent="sales")
            record = await deployment.ended(job_id)
            await eventually(lambda: deployment.commands.redis.keys("sb:cache:*"))
        await eventually(lambda: grew("switchboard_cache_lookups_total{agent=sales,result=hit}") == 2)
    labels: dict[str, Any] = {"agent": "sales", "provider": "openai", "model": "gpt-5.4-mini"}
    where = ",".join(f"{name}={labels[name]}" for name in ("agent", "model", "provider"))
    assert record.cache == "exact"
    assert grew("switchboard_cache_lookups_total{agent=sales,result=miss}") == 1
    assert grew("switchboard_cache_wait_seconds_count{agent=sales}") == 2
    saved = await deployment.books.fetchval("SELECT sum(saved_nano_usd) FROM llm_calls")
    assert round(grew(f"switchboard_cache_saved_usd_total{{{where}}}") * 1e9) == saved
    assert numbers(exposition().decode())["switchboard_cache_bytes{}"] > 0
    assert grew("switchboard_model_calls_total{model=gpt-5.4-mini,provider=openai,status=cached}") == 0
