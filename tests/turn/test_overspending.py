"""What is spent never goes over a budget: five hundred turns at once, workers killed, a provider that fails.

After each test here, and everywhere in this folder, the counters are compared with the ledger (`conftest.py`).
"""

import signal
from collections import Counter
from decimal import Decimal

import pytest

from shared import keys
from shared.config import Settings
from tests.conftest import Eventually
from tests.ledger.agreement import watched
from tests.turn.deployment import TENANT, Deployment
from tests.turn.spending import (
    BLOCK,
    MAX_TOKENS,
    REPLY_TOKENS,
    ask_all,
    budget_for,
    check_limit,
    check_the_providers_books,
    end_all,
    price_of_one,
    worker_process,
)

TURNS = 500


async def test_five_hundred_turns_at_once_do_not_overspend_a_budget_worth_a_hundred(deployment: Deployment) -> None:
    await deployment.behave({"output_tokens": REPLY_TOKENS, "latency_ms": 20})
    most = await budget_for(deployment, 100)
    jobs = await ask_all(deployment, TURNS)
    async with (
        watched(deployment.commands.redis, TENANT) as peaks,
        deployment.worker(worker_concurrency=TURNS, lease_s=30.0),
    ):
        ended = await end_all(deployment, jobs)
    rows = await deployment.ledger()
    check_limit(peaks, rows, most)
    assert ended.keys() == {"succeeded", "budget_exhausted"}
    assert len(rows) == ended["succeeded"] + 1, "a turn that was refused called nobody"
    assert 30 <= ended["succeeded"] <= 95
    served = await deployment.served()
    by_model = served["by_model"]["gpt-5.4-mini"]
    assert by_model["input_tokens"] == sum(row["input_tokens"] for row in rows)
    assert by_model["output_tokens"] == sum(row["output_tokens"] for row in rows)
    await check_the_providers_books(deployment, rows)


async def test_the_same_while_workers_are_killed(
    deployment: Deployment, settings: Settings, eventually: Eventually
) -> None:
    await deployment.behave({"output_tokens": REPLY_TOKENS, "tokens_per_s": 100})
    most = await budget_for(deployment, 100)
    jobs = await ask_all(deployment, 200)
    redis = deployment.commands.redis

    async def kill_and_start_again() -> None:
        for _ in range(3):
            async with worker_process(settings) as process:
                await eventually(lambda: redis.hlen(f"{keys.queue('default')}:slots"), timeout_s=60)
                await eventually(lambda: redis.keys("sb:calls:*"), timeout_s=60)
                process.send_signal(signal.SIGKILL)
                await process.wait()
                await deployment.end_leases()

    async with watched(redis, TENANT) as peaks:
        await kill_and_start_again()
        async with deployment.worker():
            ended = await end_all(deployment, jobs)
    rows = await deployment.ledger()
    check_limit(peaks, rows, most)
    assert ended.keys() == {"succeeded", "budget_exhausted"}
    assert any(row["status"] == "lost" for row in rows), "a worker was killed during a call"
    await check_the_providers_books(deployment, rows)


async def test_the_same_with_a_provider_that_fails_half_its_calls(deployment: Deployment) -> None:
    faults = [{"status": 500, "times": 60}, {"cut_stream": True, "times": 60}]
    plain = {"output_tokens": REPLY_TOKENS}
    await deployment.behave(plain)
    most = await budget_for(deployment, 100)
    await deployment.behave({"match": "failing", "faults": faults, **plain}, plain)
    jobs = [
        await deployment.say("failing" if n % 2 else "a question", conversation=f"c{n}", user=f"u{n}")
        for n in range(200)
    ]
    stubborn = deployment.worker(breaker_failures=0)  # else the failing half would soon not be asked any more
    async with watched(deployment.commands.redis, TENANT) as peaks, stubborn:
        ended = await end_all(deployment, jobs)
    rows = await deployment.ledger()
    check_limit(peaks, rows, most)
    assert ended["succeeded"] > 0
    assert {"ok", "error", "cut"} <= {row["status"] for row in rows}
    assert all(row["cost_nano_usd"] == 0 for row in rows if row["status"] == "error")
    await check_the_providers_books(deployment, rows)


@pytest.mark.parametrize("budget", ["user_month_usd", "day_usd", "tenant_month_tokens", "global_day_usd"])
async def test_neither_is_any_other_budget_that_two_workers_and_two_tenants_share(
    deployment: Deployment, budget: str
) -> None:
    await deployment.behave({"output_tokens": REPLY_TOKENS, "latency_ms": 20})
    cost = await price_of_one(deployment)
    (row,) = await deployment.ledger()
    tokens, usd = 12 * (row["input_tokens"] + row["output_tokens"]), f"{Decimal(12 * cost).scaleb(-9):f}"
    of_tenant = {budget: tokens if budget == "tenant_month_tokens" else usd} if budget != "global_day_usd" else {}
    await deployment.give(max_tokens=MAX_TOKENS, **of_tenant)
    await deployment.books.execute(
        "INSERT INTO tenants (tenant_id, name, settings) SELECT 'second', 'Second', settings FROM tenants"
    )
    of_all = {"global_day_usd": usd} if budget == "global_day_usd" else {}
    jobs = [
        await deployment.say("a question", tenant=tenant, conversation=f"c{n}", user="u1")
        for n in range(30)
        for tenant in (TENANT, "second")
    ]
    async with deployment.worker(**of_all), deployment.worker(**of_all):
        ended = await end_all(deployment, jobs)
    assert ended.keys() == {"succeeded", "budget_exhausted"}
    spent = Counter[str]()
    for row in await deployment.ledger():
        owner = "all" if budget == "global_day_usd" else row["tenant_id"]
        if budget != "user_month_usd" or row["user_id"] == "u1":
            spent[owner] += row["input_tokens"] + row["output_tokens"] if "tokens" in budget else row["cost_nano_usd"]
    assert set(spent) == ({"all"} if budget == "global_day_usd" else {TENANT, "second"})
    assert max(spent.values()) <= (tokens if "tokens" in budget else 12 * cost) * (1 if of_all else BLOCK)
    assert min(spent.values()) >= 4 * (tokens // 12 if "tokens" in budget else cost)
