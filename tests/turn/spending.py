"""Budgets worth so many turns, many turns at once, and what holds of money whatever happened."""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

from shared.config import Settings
from shared.jobs import JobRecord
from tests.ledger.agreement import Peaks
from tests.turn.deployment import Deployment, environment_of

BLOCK = Decimal("0.95")
REPLY_TOKENS = 40
MAX_TOKENS = 60
"""So that a hold is not much more than what a call costs: nearly all of the budget is spent."""


async def price_of_one(deployment: Deployment) -> int:
    """Nano-dollars of a turn like those that follow; it is in the books like any other."""
    async with deployment.worker():
        await deployment.ended(await deployment.say("a question", conversation="first", user="u0"))
    (row,) = await deployment.ledger()
    assert row["cost_nano_usd"] > 0
    cost: int = row["cost_nano_usd"]
    return cost


async def budget_for(deployment: Deployment, turns: int) -> int:
    """Gives the tenant what so many turns cost; the most that may be spent of it, in nano-dollars."""
    budget = await price_of_one(deployment) * turns
    await deployment.give(max_tokens=MAX_TOKENS, tenant_month_usd=f"{Decimal(budget).scaleb(-9):f}", block=0.95)
    return int(budget * BLOCK)


async def ask_all(deployment: Deployment, turns: int, text: str = "a question") -> list[str]:
    """As many conversations and users as turns."""
    return [await deployment.say(f"{text}", conversation=f"c{n}", user=f"u{n}") for n in range(turns)]


async def end_all(deployment: Deployment, jobs: list[str], timeout_s: float = 120.0) -> Counter[str]:
    """How many ended how: a state, or the code of the error."""
    records: list[JobRecord] = await asyncio.gather(*(deployment.ended_after_outage(job, timeout_s) for job in jobs))
    return Counter(record.error.code if record.error else record.state.value for record in records)


def check_limit(peaks: Peaks, rows: list[dict[str, Any]], most: int) -> None:
    """Not one nano-dollar over, at no moment that was looked at, nor in the end."""
    assert peaks.looks > 3
    month = max(usd for name, usd in peaks.usd.items() if name.startswith("month:"))
    assert month <= most
    assert sum(row["cost_nano_usd"] for row in rows) <= most


async def check_the_providers_books(deployment: Deployment, rows: list[dict[str, Any]]) -> None:
    """Every call the provider served to its end is an exact row."""
    served = {e["request_id"]: e for e in (await deployment.served())["requests"] if e["status"] == "served"}
    exact = {row["request_id"]: row for row in rows if row["status"] == "ok"}
    assert exact.keys() <= served.keys()
    for request_id, row in exact.items():
        entry = served[request_id]
        assert (row["input_tokens"], row["output_tokens"]) == (entry["input_tokens"], entry["output_tokens"])


@contextlib.asynccontextmanager
async def worker_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops", "worker", env=environment_of(settings), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
