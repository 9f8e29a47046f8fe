"""The budget gate in `admit`, and many senders at the same time."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime

import pytest
from redis.asyncio import Redis

from shared.budgets import DeploymentBudgets, Scope, scopes_of
from shared.config import Settings
from shared.tenants import Budgets
from tests.limits.sending import send, window
from tests.queue.harness import Bench

NOV_21_MS = 1_795_219_200_000
CONVERSATION, USER, DAY, MONTH, ALL_DAY, ALL_MONTH = scopes_of(
    Budgets(day_nano_usd=3_000, tenant_month_nano_usd=10_000),
    DeploymentBudgets(day_nano_usd=50_000, month_nano_usd=100_000),
    tenant="acme",
    user_id="ada",
    conversation_id="c1",
    at_ms=NOV_21_MS,
)
EVERY = (CONVERSATION, USER, DAY, MONTH, ALL_DAY, ALL_MONTH)


@pytest.mark.parametrize("scope", EVERY, ids=lambda scope: scope.kind)
async def test_a_spent_budget_refuses_by_name_and_nothing_is_counted(bench: Bench, redis: Redis, scope: Scope) -> None:
    most = scope.most_nano_usd
    assert most is not None
    await redis.hset(scope.key, mapping={"usd": most - 1, "usd_held": 10**12})
    assert (await send(bench.intake, window(9), budgets=EVERY)).outcome == "accepted"  # held is not spent
    await redis.hset(scope.key, "usd", most)
    refused = await send(bench.intake, window(9), budgets=EVERY)
    assert (refused.outcome, refused.refused_by) == ("spent", scope)
    assert refused.windows[0].remaining == 8
    assert await redis.llen(window(9).key) == 1
    assert await redis.keys(f"*{refused.job_id}*") == []


def test_the_deployments_budgets_are_those_of_the_settings() -> None:
    assert DeploymentBudgets.of(Settings.read()) == DeploymentBudgets(day_nano_usd=50_000_000_000)
    given = Settings.read({"global_day_usd": "none", "global_month_usd": "0.000000001"})
    assert DeploymentBudgets.of(given) == DeploymentBudgets(month_nano_usd=1)


@pytest.mark.parametrize(
    ("at", "day", "month", "day_ends", "month_ends"),
    [
        ("2026-11-30T23:59:59.999", "20261130", "202611", "2026-12-01", "2026-12-01"),
        ("2026-12-01T00:00:00.000", "20261201", "202612", "2026-12-02", "2027-01-01"),
        ("2028-02-28T12:00:00.000", "20280228", "202802", "2028-02-29", "2028-03-01"),
    ],
)
def test_a_message_belongs_to_the_day_and_month_of_its_millisecond(
    at: str, day: str, month: str, day_ends: str, month_ends: str
) -> None:
    at_ms = int(datetime.fromisoformat(f"{at}+00:00").timestamp() * 1_000)
    how = {"tenant": "a", "user_id": None, "conversation_id": "c"}
    scopes = {each.kind: each for each in scopes_of(Budgets(), DeploymentBudgets(), at_ms=at_ms, **how)}  # type: ignore[arg-type]
    ends = [int(datetime.fromisoformat(f"{end}T00:00:00+00:00").timestamp()) for end in (day_ends, month_ends)]
    assert (scopes["global-day"].key, scopes["global-day"].ends_at_s) == (f"sb:spent:all-day:{day}", ends[0])
    assert (scopes["tenant-month"].key, scopes["tenant-month"].ends_at_s) == (f"sb:spent:month:a:{month}", ends[1])


async def test_tokens_are_a_budget_too(bench: Bench, redis: Redis) -> None:
    assert MONTH.most_tokens == 950_000
    await redis.hset(MONTH.key, mapping={"tok": 949_999, "usd": 1})
    assert (await send(bench.intake, budgets=EVERY)).outcome == "accepted"
    await redis.hset(MONTH.key, mapping={"tok": 950_000})
    assert (await send(bench.intake, budgets=EVERY)).refused_by == MONTH


async def test_an_amount_beyond_fifteen_digits_is_compared_exactly(bench: Bench, redis: Redis) -> None:
    """Numbers of Lua hold 53 bits; a text of them would hold 14 digits."""
    huge = Scope("global-month", "sb:spent:huge", None, 4_000_000_000_000_001)
    await redis.hset(huge.key, "usd", 4_000_000_000_000_000)
    assert (await send(bench.intake, budgets=(huge,))).outcome == "accepted"
    await redis.hset(huge.key, "usd", 4_000_000_000_000_001)
    assert (await send(bench.intake, budgets=(huge,))).outcome == "spent"


async def test_nothing_may_be_spent_of_a_budget_of_nothing(bench: Bench) -> None:
    nothing = Scope("global-day", "sb:spent:nothing", None, 0)
    assert (await send(bench.intake, budgets=(nothing,))).refused_by == nothing


async def test_the_narrowest_of_several_spent_budgets_is_named(bench: Bench, redis: Redis) -> None:
    for scope in (ALL_DAY, USER, MONTH):
        await redis.hset(scope.key, "usd", 10**15)
    assert (await send(bench.intake, budgets=EVERY)).refused_by == USER


async def test_a_full_window_is_told_before_a_spent_budget(bench: Bench, redis: Redis) -> None:
    """It is over sooner; and of several reasons callers always hear the same one."""
    await redis.hset(USER.key, "usd", 10**15)
    assert (await send(bench.intake, window(0), budgets=EVERY)).outcome == "limited"


async def test_a_burst_over_four_connections_lets_in_exactly_the_limit(bench: Bench, redis_url: str) -> None:
    limits = window(37), window(60, level="tenant", name="acme"), window(90, level="global", name="all")
    async with AsyncExitStack() as stack:
        benches = [await stack.enter_async_context(Bench.open(redis_url)) for _ in range(4)]
        sent = [send(benches[n % 4].intake, *limits) for n in range(200)]
        outcomes = [admission.outcome for admission in await asyncio.gather(*sent)]
    assert (outcomes.count("accepted"), outcomes.count("limited")) == (37, 163)
    standings = (await send(bench.intake, *limits)).windows
    assert [standing.remaining for standing in standings] == [0, 60 - 37, 90 - 37]
