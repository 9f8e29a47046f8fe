"""What counts as crossed, and that it is told once for each crossing and period."""

import asyncio
import json
from datetime import timedelta

import asyncpg
import pytest

from shared.budgets import DeploymentBudgets
from shared.db import Pool
from shared.errors import Unavailable
from sql import queries
from tests.alerts.conftest import DOLLAR, NOW, EndJobs, SetRule, Spend, events
from workers.alerts import judge as judging
from workers.alerts.figures import Figures
from workers.alerts.judge import Judge

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


async def budgets_are(books: asyncpg.Connection, **budgets: str | float) -> None:
    """All others: none."""
    names = ("user_month_usd", "tenant_month_usd", "tenant_month_tokens", "conversation_usd", "day_usd")
    document = {"budgets": {**dict.fromkeys(names, "none"), **budgets}}
    await books.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = 'acme'", json.dumps(document))


async def test_each_share_of_a_budget_is_told_once_and_no_sooner(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await budgets_are(books, user_month_usd="10")
    await set_rule("budget", "0.5", "0.8", "1")
    await spend(5 * DOLLAR - 1)
    assert await judge.judge(NOW) == 0
    await spend(1)
    assert [await judge.judge(NOW + n * MINUTE) for n in range(3)] == [1, 0, 0]
    await spend(5 * DOLLAR)
    assert [await judge.judge(NOW + n * MINUTE) for n in range(3)] == [2, 0, 0]
    scope, month = "user-month:u1", "2026-11"
    assert await events(books) == [("budget", scope, month, share) for share in ("0.5", "0.8", "1")]


async def test_a_tenant_is_warned_at_the_share_it_has_set_where_its_rule_says_nothing_else(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await budgets_are(books, user_month_usd="10", warn=0.3)
    await set_rule("budget", "0.5", "0.8", "1", name="usual")
    await set_rule("budget", "0.9", name="own")
    await spend(3 * DOLLAR - 1)
    assert await judge.judge(NOW) == 0
    for dollars in (0, 5, 2):  # and the one that was missing
        await spend(dollars * DOLLAR + (dollars == 0))
        await judge.judge(NOW)
    told = [(name, share) for name, _, _, share in await events(books)]
    assert told == [("usual", "0.3"), ("usual", "0.5"), ("own", "0.9"), ("usual", "1")]


async def test_every_kind_of_budget_is_judged(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await budgets_are(
        books, tenant_month_usd="10", tenant_month_tokens="none", conversation_usd="1", day_usd="2", user_month_usd="4"
    )
    await set_rule("budget", "1")
    await set_rule("budget", "0.2", tenant="*")
    await spend(2 * DOLLAR, user="u1", conversation="a")
    await spend(1 * DOLLAR, user="u2", conversation="b", at=NOW - 2 * DAY)  # idle since: crossed long ago
    await spend(4 * DOLLAR, user="u2", conversation="c", at=NOW - 3 * DAY)
    await spend(3 * DOLLAR, user="u2", conversation="d", at=NOW - 3 * DAY)
    await spend(30 * DOLLAR, tenant="other")
    await judge.judge(NOW)
    assert sorted(await events(books)) == [
        ("budget", "conversation:a", "", "1"),
        ("budget", "global-day", "2026-11-21", "0.2"),
        ("budget", "tenant-day", "2026-11-21", "1"),
        ("budget", "tenant-month", "2026-11", "1"),
        ("budget", "user-month:u2", "2026-11", "1"),
    ]


async def test_what_a_conversation_crossed_while_nobody_judged_is_told_when_somebody_does(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await budgets_are(books, conversation_usd="1")
    await set_rule("budget", "1", scopes=["conversation"])
    await spend(DOLLAR, conversation="long ago", at=NOW - 40 * DAY)
    await spend(DOLLAR, conversation="before", at=NOW - 7 * DAY)
    await judge.judge(NOW - 5 * DAY)
    await spend(DOLLAR, conversation="meanwhile", at=NOW - 4 * DAY)
    assert await judge.judge(NOW) == 1
    assert [scope for _, scope, *_ in await events(books)] == ["conversation:meanwhile"]
    assert await judge.judge(NOW + MINUTE) == 0


async def test_a_rule_that_takes_postgres_too_long_keeps_no_other_from_being_judged(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await budgets_are(books, conversation_usd="1")
    await set_rule("budget", "1", scopes=["conversation"], name="a")
    await set_rule("daily_cost_usd", "1", name="b")
    await spend(2 * DOLLAR)

    async def too_long(*_: object) -> None:
        raise Unavailable("it took too long")

    with monkeypatch.context() as patched:
        patched.setattr(Figures, "spending_conversations", too_long)
        with pytest.raises(Unavailable):
            await judge.judge(NOW)
    assert [name for name, *_ in await events(books)] == ["b"]
    assert await books.fetchval("SELECT judged_to FROM alert_clock") is None, "not all of them"
    assert await judge.judge(NOW + MINUTE) == 1


async def test_tokens_are_a_budget_of_their_own(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    document = {"budgets": {"tenant_month_tokens": 1_000, "user_month_usd": "none", "conversation_usd": "none"}}
    await books.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = 'acme'", json.dumps(document))
    await set_rule("budget", "0.8")
    await spend(1, tokens=799)
    assert await judge.judge(NOW) == 0
    await spend(1, tokens=1)
    assert await judge.judge(NOW) == 1
    row = await books.fetchrow("SELECT scope, value, threshold_limit, detail FROM alert_events")
    assert (row["scope"], row["value"], row["threshold_limit"]) == ("tenant-month:tokens", 800, 1_000)
    assert json.loads(row["detail"]) == {"unit": "tokens"}


async def test_a_budget_that_is_raised_is_another_one(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await set_rule("budget", "0.8")
    await budgets_are(books, day_usd="10")
    await spend(8 * DOLLAR)
    assert await judge.judge(NOW) == 1
    await budgets_are(books, day_usd="20")
    assert await judge.judge(NOW + MINUTE) == 0
    await spend(8 * DOLLAR)
    assert await judge.judge(NOW + 2 * MINUTE) == 1
    await budgets_are(books, day_usd="10")  # and back: that was told
    assert await judge.judge(NOW + 3 * MINUTE) == 0


async def test_an_unlimited_tenant_has_no_budgets(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await books.execute("UPDATE tenants SET settings = '{\"unlimited\": true}'")
    await set_rule("budget", "0.1")
    await spend(1_000 * DOLLAR)
    assert await judge.judge(NOW) == 0


async def test_a_month_is_judged_a_while_longer_and_the_next_one_starts_at_nothing(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await budgets_are(books, tenant_month_usd="10")
    await set_rule("budget", "1")
    turn = NOW.replace(month=12, day=1, hour=0, minute=5)
    await spend(10 * DOLLAR, at=turn - 6 * MINUTE)  # booked after the month's last judging
    assert await judge.judge(turn) == 1
    assert await judge.judge(turn + DAY) == 0
    await spend(10 * DOLLAR, at=turn)
    assert await judge.judge(turn + DAY) == 1
    assert [period for _, _, period, _ in await events(books)] == ["2026-11", "2026-12"]


async def test_costs_of_day_and_month_and_conversation(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await set_rule("daily_cost_usd", "5")
    await set_rule("monthly_cost_usd", "100")
    await set_rule("conversation_cost_usd", "0.5")
    await set_rule("daily_cost_usd", "5", tenant="*")
    await spend(5 * DOLLAR, tenant="other")
    for number in range(10):
        await spend(DOLLAR // 2, conversation=f"c{number}")
    assert await judge.judge(NOW) == 1  # exactly at a limit is not above it; for all together it is
    await spend(1)
    await judge.judge(NOW)
    assert sorted(await events(books)) == [
        ("conversation-cost-usd", "tenant", "2026-11-21", "0.5"),
        ("daily-cost-usd", "deployment", "2026-11-21", "5"),
        ("daily-cost-usd", "tenant", "2026-11-21", "5"),
    ]
    await spend(95 * DOLLAR, at=NOW - 3 * DAY)
    assert await judge.judge(NOW) == 1


async def test_few_jobs_say_nothing_about_a_rate(
    judge: Judge, set_rule: SetRule, end_jobs: EndJobs, books: asyncpg.Connection
) -> None:
    await set_rule("error_rate", "0.05")
    await end_jobs(19, failed=19)
    assert await judge.judge(NOW) == 0
    await end_jobs(1)
    assert await judge.judge(NOW) == 1
    assert await events(books) == [("error-rate", "tenant", "2026-11-21T15", "0.05")]


async def test_exactly_the_threshold_is_not_above_it(judge: Judge, set_rule: SetRule, end_jobs: EndJobs) -> None:
    await set_rule("error_rate", "0.05")
    await end_jobs(40, failed=2)
    assert await judge.judge(NOW) == 0


async def test_a_rate_is_told_again_when_it_was_over_and_comes_back_or_on_another_day(
    judge: Judge, set_rule: SetRule, end_jobs: EndJobs, books: asyncpg.Connection
) -> None:
    hour = timedelta(hours=1)
    await set_rule("error_rate", "0.05")
    told = []
    for after, failed in ((0, 10), (1, 10), (2, 0), (3, 10), (24, 10)):
        await end_jobs(20, failed=failed, at=NOW + after * hour)
        told.append(await judge.judge(NOW + after * hour))
    assert told == [1, 0, 0, 1, 1]
    over = await books.fetch("SELECT over_at IS NOT NULL AS over FROM alert_events ORDER BY event_id")
    assert [row["over"] for row in over] == [True, False, False]


async def test_the_higher_of_two_thresholds_is_told_again_while_the_lower_one_stands(
    judge: Judge, set_rule: SetRule, end_jobs: EndJobs, books: asyncpg.Connection
) -> None:
    hour = timedelta(hours=1)
    await set_rule("error_rate", "0.05", "0.4")
    told = []
    for after, failed in ((0, 10), (2, 2), (4, 10)):
        await end_jobs(20, failed=failed, at=NOW + after * hour)
        told.append(await judge.judge(NOW + after * hour))
    assert told == [2, 0, 1]


async def test_latencies_of_successes(judge: Judge, set_rule: SetRule, end_jobs: EndJobs) -> None:
    await set_rule("p50_s", "5")
    await set_rule("p99_s", "15")
    await end_jobs(97, took_s=1.0)
    await end_jobs(3, took_s=20.0)
    await end_jobs(200, failed=200, took_s=60.0)
    assert await judge.judge(NOW) == 1  # p99
    await end_jobs(100, took_s=6.0)
    assert await judge.judge(NOW) == 1  # p50 as well


async def test_fewer_users_than_a_week_before(
    judge: Judge, set_rule: SetRule, end_jobs: EndJobs, books: asyncpg.Connection
) -> None:
    await set_rule("dau_drop", "0.2")
    await set_rule("dau_drop", "0.2", tenant="*")
    await end_jobs(25, users=25, at=NOW - 8 * DAY)
    await end_jobs(25, users=21, at=NOW - DAY)
    assert await judge.judge(NOW) == 0  # 16 % fewer
    await books.execute("DELETE FROM jobs WHERE finished_at > $1 AND user_id = 'u20'", NOW - 2 * DAY)
    assert await judge.judge(NOW) == 2
    assert [period for _, _, period, _ in await events(books)] == ["2026-11-20", "2026-11-20"]


async def test_two_judges_at_once_and_one_after_a_restart_tell_it_once(
    books: asyncpg.Connection, ops: Pool, set_rule: SetRule, spend: Spend
) -> None:
    await set_rule("daily_cost_usd", "5")
    await spend(6 * DOLLAR)
    judges = [Judge(ops, DeploymentBudgets()) for _ in range(4)]
    assert sum(await asyncio.gather(*(judge.judge(NOW) for judge in judges))) == 1
    assert await Judge(ops, DeploymentBudgets()).judge(NOW) == 0
    assert await books.fetchval("SELECT count(*) FROM deliveries") == 1


async def test_one_process_judges_a_minute(ops: Pool) -> None:
    asked = await asyncio.gather(*(ops.fetchval(queries["claim_alert_minute"]) for _ in range(4)))
    assert len([now_us for now_us in asked if now_us is not None]) in {1, 2}  # 2: the minute turned meanwhile


async def test_a_rule_that_cannot_be_read_keeps_no_other_from_being_judged(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await set_rule("of_a_later_version", "1", name="a-first")
    await books.execute("UPDATE tenants SET settings = '{\"budgets\": 7}' WHERE tenant_id = 'other'")
    await set_rule("budget", "1", tenant="other", name="b-second")
    await set_rule("daily_cost_usd", "5", tenant="other", name="c-third")
    await spend(6 * DOLLAR, tenant="other")
    assert await judge.judge(NOW) == 1


async def test_thousands_who_cross_at_once_are_told_of_at_a_pace(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "PACE", 4)
    await budgets_are(books, user_month_usd="1")
    await set_rule("budget", "1")
    for number in range(10):
        await spend(DOLLAR, user=f"u{number}")
    assert [await judge.judge(NOW) for _ in range(4)] == [4, 4, 2, 0]


async def test_a_disabled_tenants_rules_rest(
    books: asyncpg.Connection, judge: Judge, set_rule: SetRule, spend: Spend
) -> None:
    await set_rule("daily_cost_usd", "5")
    await spend(6 * DOLLAR)
    await books.execute("UPDATE tenants SET disabled_at = now() WHERE tenant_id = 'acme'")
    assert await judge.judge(NOW) == 0
