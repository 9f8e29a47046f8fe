"""Limits as callers meet them: who is refused, what it costs, and what every answer says of the windows."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from ingress.limits import limits_of
from shared import keys
from shared.budgets import DeploymentBudgets, scopes_of
from shared.telemetry.metrics import REGISTRY
from shared.tenants import settings_of
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, Running, settings_for, started
from tests.limits.clock import SECOND, Clock, edited

RATE_HEADERS = {
    "ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
}  # fmt: skip


@pytest.fixture
async def clock(redis: Redis) -> AsyncIterator[Clock]:
    with edited():
        made = Clock(redis)
        await made.move(0)
        yield made


async def give(database: Database, document: dict[str, Any], tenant: str = "a") -> None:
    connection = await asyncpg.connect(database.superuser)
    text = msgspec.json.encode(document).decode()
    await connection.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = $2", text, tenant)
    await connection.close()


async def say(client: httpx.AsyncClient, user: str | None = "ada", **options: Any) -> httpx.Response:
    body = {"message": "hello", **({} if user is None else {"user_id": user}), **options.pop("json", {})}
    return await client.post(MESSAGES, json=body, **options)


async def test_a_user_may_send_thirty_a_minute_and_the_tenant_sixty(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, clock: Clock, redis: Redis
) -> None:
    assert [(await say(client)).status_code for _ in range(31)] == [202] * 30 + [429]
    refused = await say(client)
    assert refused.json()["type"] == "/problems/rate_limited"
    assert refused.json()["level"] == "user"
    assert "30" in refused.json()["detail"]
    assert refused.headers["retry-after"] == "60"
    assert [(await say(client, "bob")).status_code for _ in range(31)] == [202] * 30 + [429]
    assert (await say(client, "cyd")).json()["level"] == "tenant"
    assert (await say(client, None)).json()["level"] == "tenant"
    assert (await say(stranger)).status_code == 202
    assert await redis.zcard(f"{keys.queue('default')}:expiry") == 61
    await clock.move(60 * SECOND - 1)
    assert (await say(client)).status_code == 429
    await clock.move(1)
    assert (await say(client)).status_code == 202


async def test_every_answer_after_admission_says_how_the_windows_stand(client: httpx.AsyncClient, clock: Clock) -> None:
    key = {"idempotency-key": "k"}
    accepted = await say(client, headers=key, json={"conversation_id": "c"})
    assert accepted.headers["ratelimit-policy"] == '"user";q=30;w=60, "tenant";q=60;w=60'
    assert accepted.headers["ratelimit"] == '"user";r=29;t=60'
    assert accepted.headers["x-ratelimit-limit"] == "30"
    assert accepted.headers["x-ratelimit-remaining"] == "29"
    assert accepted.headers["x-ratelimit-reset"] == "60"
    await clock.move(20 * SECOND + 1)
    replayed = await say(client, headers=key, json={"conversation_id": "c"})
    mismatch = await say(client, headers=key, json={"message": "other"})
    owner = await say(client, "bob", json={"conversation_id": "c"})
    busy = await say(client, json={"conversation_id": "c", "policy": "reject"})
    assert [each.status_code for each in (replayed, mismatch, owner, busy)] == [200, 422, 422, 409]
    for each in (replayed, mismatch, busy):
        assert each.headers["ratelimit"] == '"user";r=29;t=40'
    assert owner.headers["ratelimit"] == '"user";r=30;t=60'  # bob's
    assert busy.headers["x-should-retry"] == "false"
    for _ in range(29):
        await say(client)
    refused = await say(client)
    assert (refused.status_code, refused.headers["ratelimit"]) == (429, '"user";r=0;t=40')
    assert refused.headers["retry-after"] == "40"


async def test_a_refused_message_is_counted_and_logged_by_what_refused_it(
    client: httpx.AsyncClient, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def counted() -> float:
        labels = {"agent": "support", "outcome": "limited_user"}
        return REGISTRY.get_sample_value("switchboard_admissions_total", labels) or 0.0

    before = counted()
    for _ in range(31):
        await say(client)
    assert counted() == before + 1
    lines = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["event"] == "request"]
    assert (lines[-1]["status"], lines[-1]["outcome"], lines[-1]["problem"]) == (429, "limited_user", "rate_limited")


async def test_a_replay_is_answered_from_a_full_window_and_takes_no_place(
    client: httpx.AsyncClient, clock: Clock
) -> None:
    first = await say(client, headers={"idempotency-key": "k"})
    for _ in range(29):
        await say(client)
    assert (await say(client)).status_code == 429
    replayed = await say(client, headers={"idempotency-key": "k"})
    assert (replayed.status_code, replayed.json()["id"]) == (200, first.json()["id"])


async def test_a_refused_message_leaves_its_key_for_a_later_try(client: httpx.AsyncClient, clock: Clock) -> None:
    for _ in range(30):
        await say(client)
    assert (await say(client, headers={"idempotency-key": "later"})).status_code == 429
    await clock.move(60 * SECOND)
    assert (await say(client, headers={"idempotency-key": "later"})).status_code == 202


async def test_a_tier_limits_its_users_by_the_hour(
    running: Running, with_keys: Database, client: httpx.AsyncClient, clock: Clock
) -> None:
    await give(with_keys, {"default_user_tier": "free", "user_tiers": {"vip": "enterprise"}})
    assert [(await say(client)).status_code for _ in range(11)] == [202] * 10 + [429]
    refused = await say(client)
    assert (refused.json()["level"], refused.headers["retry-after"]) == ("tier", "3600")
    assert refused.headers["ratelimit-policy"] == '"user";q=30;w=60, "tier";q=10;w=3600, "tenant";q=60;w=60'
    assert [(await say(client, "vip")).status_code for _ in range(11)] == [202] * 11
    assert (await say(client, None)).status_code == 202
    await clock.move(3_600 * SECOND)
    assert (await say(client)).status_code == 202


async def test_the_deployment_has_a_window_that_tenants_see_only_when_it_is_full(
    redis_url: str, with_keys: Database, clock: Clock
) -> None:
    settings = settings_for(redis_url, with_keys.app, global_per_min=5)
    async with started(settings) as running, running.client() as one, running.client("sk-tenant-b") as other:
        for _ in range(4):
            response = await say(one)
            assert '"global"' not in response.headers["ratelimit-policy"]
            assert response.headers["x-ratelimit-limit"] == "30"
        assert (await say(other)).headers["x-ratelimit-remaining"] == "0"  # the last place of all
        refused = await say(other)
        assert (refused.status_code, refused.json()["level"]) == (429, "global")
        assert refused.headers["ratelimit"] == '"global";r=0;t=60'


async def test_a_tenant_without_limits_is_not_counted_and_told_nothing(
    redis_url: str, with_keys: Database, redis: Redis
) -> None:
    await give(with_keys, {"unlimited": True})
    await redis.hset(keys.spent("user", "a", "202611", "ada"), "usd", 10**15)
    settings = settings_for(redis_url, with_keys.app, global_per_min=1, global_day_usd="0")
    async with started(settings) as running, running.client() as client:
        responses = await asyncio.gather(*(say(client) for _ in range(70)))
    assert {response.status_code for response in responses} == {202}
    assert RATE_HEADERS.isdisjoint(responses[0].headers)
    assert await redis.keys("sb:rate:*") == []


async def test_a_changed_limit_is_in_force_with_the_key(
    redis_url: str, with_keys: Database, eventually: Callable[..., Any]
) -> None:
    settings = settings_for(redis_url, with_keys.app, key_cache_ttl_s=0.05)
    async with started(settings) as running, running.client() as client:
        assert (await say(client)).status_code == 202
        await give(with_keys, {"rates": {"user_per_min": 1}})

        async def refused() -> bool:
            return (await say(client)).status_code == 429

        await eventually(refused)


@pytest.mark.parametrize(
    ("parts", "scope", "period"),
    [
        (("user", "a", "{month}", "ada"), "user-month", "month"),
        (("month", "a", "{month}"), "tenant-month", "month"),
        (("conv", "a", "c"), "conversation", None),
        (("all-day", "{day}"), "global-day", "day"),
        (("all-month", "{month}"), "global-month", "month"),
    ],
)
async def test_a_spent_budget_is_402_and_says_whose_and_until_when(
    redis_url: str, with_keys: Database, redis: Redis, parts: tuple[str, ...], scope: str, period: str | None
) -> None:
    await give(with_keys, {"budgets": {"tenant_month_usd": "10"}})
    settings = settings_for(redis_url, with_keys.app, global_month_usd="10")
    now_s, _ = await redis.time()
    for at in (_day(now_s), _day(now_s + 3_600)):  # whatever the clock strikes meanwhile
        key = keys.spent(*(part.format(day=at, month=at[:6]) for part in parts))
        await redis.hset(key, mapping={"usd": 77_777_777_777})
    async with started(settings) as running, running.client() as client:
        refused = await say(client, json={"conversation_id": "c"})
    problem = refused.json()
    assert (refused.status_code, problem["type"], problem["scope"]) == (402, "/problems/budget_exhausted", scope)
    assert "77777" not in refused.text  # an id may have three of them
    assert ("resets_at" in problem) == (period is not None)
    if period:
        assert problem["resets_at"][-17:] == "T00:00:00.000000Z"
        assert problem["resets_at"] in problem["detail"]
    assert refused.headers["x-ratelimit-remaining"] == "30"
    assert await redis.keys("arq:job:*") == await redis.keys("sb:rate:*") == []


def _day(unix_s: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(unix_s))


async def test_the_openai_sdks_way_of_trying_again_ends_in_an_accepted_message(
    running: Running, client: httpx.AsyncClient, clock: Clock
) -> None:
    """Its retry of a refused request is a new request, and nothing was consumed by the first."""
    for _ in range(30):
        await say(client)
    first = await say(client, headers={"x-stainless-retry-count": "0"})
    assert first.status_code == 429
    await clock.move(int(first.headers["retry-after"]) * SECOND)
    assert (await say(client, headers={"x-stainless-retry-count": "1"})).status_code == 202


def test_an_endpoints_window_is_asked_where_it_is_named() -> None:
    terms = settings_of({"rates": {"webhook_user_per_min": 7}}).terms(1)
    how = {"tenant": "a", "conversation_id": "c", "at_ms": 0, "global_per_min": 10_000}
    asked = {
        endpoint: limits_of(terms, DeploymentBudgets(), user_id="ada", endpoint=endpoint, **how)  # type: ignore[arg-type]
        for endpoint in (None, "webhook", "flows")
    }
    levels = {name: [(each.level, each.limit) for each in limits.windows] for name, limits in asked.items()}
    assert levels[None] == [("user", 30), ("tenant", 60), ("global", 10_000)]
    assert levels["webhook"] == [("endpoint", 7), ("tenant", 60), ("global", 10_000)]
    assert levels["flows"][0] == ("endpoint", 20)
    assert asked["webhook"].windows[0].key != asked["flows"].windows[0].key


def test_without_a_user_there_is_no_window_of_a_user() -> None:
    terms = settings_of({"default_user_tier": "free"}).terms(1)
    how = {"tenant": "a", "conversation_id": "c", "at_ms": 0, "global_per_min": 10_000}
    limits = limits_of(terms, DeploymentBudgets(), user_id=None, endpoint="webhook", **how)  # type: ignore[arg-type]
    assert [each.level for each in limits.windows] == ["tenant", "global"]
    assert "user-month" not in {scope.kind for scope in limits.budgets}


@pytest.mark.parametrize("user_id", [None, "ada"])
@pytest.mark.parametrize("deployment", [DeploymentBudgets(), DeploymentBudgets(day_nano_usd=5, month_nano_usd=6)])
def test_the_budgets_asked_are_the_scopes_of_a_call_that_have_a_limit(
    user_id: str | None, deployment: DeploymentBudgets
) -> None:
    terms = settings_of({"budgets": {"day_usd": "1", "tenant_month_usd": "2"}}).terms(1)
    for minute in (29_583_359, 29_583_360):  # the last one of March 2026, and the first of April
        for conversation_id in ("c", "d"):
            when = {"tenant": "a", "conversation_id": conversation_id, "at_ms": minute * 60_000 + 7}
            asked = limits_of(terms, deployment, user_id=user_id, global_per_min=1, **when)  # type: ignore[arg-type]
            scopes = scopes_of(terms.budgets, deployment, user_id=user_id, **when)  # type: ignore[arg-type]
            limited = [s for s in scopes if s.budget_nano_usd is not None or s.budget_tokens is not None]
            assert list(asked.budgets) == limited


def test_terms_that_change_are_asked_at_once() -> None:
    deployment = DeploymentBudgets()

    def limit(per_min: int) -> int:
        terms = settings_of({"rates": {"tenant_per_min": per_min}}).terms(1)
        how = {"tenant": "a", "conversation_id": "c", "at_ms": 0, "global_per_min": 10_000, "user_id": None}
        return limits_of(terms, deployment, **how).windows[0].limit  # type: ignore[arg-type]

    assert [limit(per_min) for per_min in (7, 8, 7)] == [7, 8, 7]
