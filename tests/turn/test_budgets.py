"""Each budget stops what does not fit in it, by name, and leaves nothing held.

What happens to money when something breaks: `test_overspending.py`, `test_settling.py`, `test_money_lost.py`.
"""

from functools import partial
from typing import Any

import pytest

from agents import registry
from tests.ledger.agreement import read_counters
from tests.turn.deployment import Deployment


async def test_an_unlimited_tenant_is_counted_and_not_stopped(deployment: Deployment) -> None:
    await deployment.give(tenant_month_usd="0.000000001")
    await deployment.books.execute("UPDATE tenants SET settings = settings || '{\"unlimited\": true}'")
    async with deployment.worker():
        assert (await deployment.ended(await deployment.say("hello"))).state == "succeeded"
    (row,) = await deployment.ledger()
    counters = await read_counters(deployment.commands.redis)
    assert {counter["usd"] for counter in counters.values()} == {row["cost_nano_usd"]}
    assert len(counters) == 6


async def test_a_budget_that_is_raised_is_in_force_at_once(deployment: Deployment) -> None:
    await deployment.give(conversation_usd="0.000001")
    async with deployment.worker():
        poor = await deployment.ended(await deployment.say("hello"))
        await deployment.give(conversation_usd="1")
        rich = await deployment.ended(await deployment.say("hello"))
    assert (poor.state, rich.state) == ("dead", "succeeded")
    assert poor.error is not None
    assert (poor.error.code, poor.attempts, poor.error.retryable) == ("budget_exhausted", 1, False)
    assert "conversation" in poor.error.message
    assert await deployment.books.fetchval("SELECT traceback FROM dead_jobs") is None


@pytest.mark.parametrize(
    ("budgets", "scope"),
    [
        ({"conversation_usd": "0.000001"}, "conversation"),
        ({"user_month_usd": "0.000001"}, "user-month"),
        ({"day_usd": "0.000001"}, "tenant-day"),
        ({"tenant_month_usd": "0.000001"}, "tenant-month"),
        ({"tenant_month_tokens": 100}, "tenant-month"),
    ],
)
async def test_each_budget_stops_a_call_that_does_not_fit(
    deployment: Deployment, budgets: dict[str, Any], scope: str
) -> None:
    await deployment.give(**budgets)
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert record.error is not None
    assert f"this {scope} " in record.error.message
    assert (await deployment.served())["calls"] == 0
    assert await deployment.ledger() == []
    assert not await deployment.commands.redis.keys("sb:spent:*"), "nothing is held, and nothing left behind"


@pytest.mark.parametrize("name", ["global_day_usd", "global_month_usd"])
async def test_the_deployments_budgets_stop_everybody(deployment: Deployment, name: str) -> None:
    await deployment.give()
    async with deployment.worker(**{name: "0.000001"}):
        record = await deployment.ended(await deployment.say("hello"))
    assert record.error is not None
    assert record.error.message.startswith("the deployment's budget of this")


async def test_a_price_nobody_knows_stops_the_call_and_holds_nothing(deployment: Deployment) -> None:
    settings = '{"agents": {"support": {"models": ["openai:gpt-of-tomorrow"]}}}'
    await deployment.books.execute("UPDATE tenants SET settings = $1", settings)
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert record.error is not None
    assert (record.state, record.error.code) == ("dead", "price_unknown")
    assert not await deployment.commands.redis.keys("sb:spent:*")
    assert (await deployment.served())["calls"] == 0


async def test_a_second_call_that_does_not_fit_ends_the_turn_and_the_first_is_paid(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", partial(registry.load, ("agents", "tests.turn.agents")))
    await deployment.give(conversation_usd="0.0025")
    await deployment.behave({"output_tokens": 400})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello", agent="thinker"))
    assert record.error is not None
    assert (record.state, record.error.code) == ("dead", "budget_exhausted")
    (row,) = await deployment.ledger()
    assert row["cost_nano_usd"] == record.cost_nano_usd
