"""Whose calls a report is about: the database decides, whoever asks and however."""

import asyncpg
import pytest

from ops.usage.books import UsageBooks
from shared.db import Pool
from shared.errors import ConfigError
from tests.conftest import Database
from tests.usage.ledger import Ledger, costs, question

VIEWS = ("usage_calls", "usage_hourly", "usage_daily", "usage_domain_costs")


@pytest.fixture(autouse=True)
async def two_tenants(ledger: Ledger) -> None:
    await ledger.add(tenant="acme", cost_nano_usd=1)
    await ledger.add(tenant="other", cost_nano_usd=10)


async def test_the_role_of_one_tenant_is_told_about_that_tenant_only(own_books: UsageBooks) -> None:
    assert not own_books.sees_all
    for tenant, cost in (("acme", 1), ("other", 10)):
        report = await own_books.report(question(by="tenant", tenant=tenant))
        assert costs(report) == {tenant: cost}
        assert report.totals.cost_nano_usd == cost
    assert (await own_books.report(question(by="tenant", tenant="nobody"))).totals.calls == 0


async def test_without_a_tenant_that_role_is_told_nothing_even_after_a_report_of_one(own_books: UsageBooks) -> None:
    for _ in range(2):
        assert (await own_books.report(question())).totals.calls == 0
        assert (await own_books.report(question(tenant="acme"))).totals.calls == 1
    with pytest.raises(ConfigError, match="one tenant at a time"):
        own_books.check_reach(None)


async def test_operators_are_told_about_all_or_one(books: UsageBooks) -> None:
    books.check_reach(None)
    assert costs(await books.report(question(by="tenant"))) == {"other": 10, "acme": 1}
    assert costs(await books.report(question(by="tenant", tenant="acme"))) == {"acme": 1}


@pytest.mark.parametrize("view", VIEWS)
async def test_the_views_show_what_the_ledger_would(view: str, database: Database, ops: Pool) -> None:
    connection = await asyncpg.connect(database.app)
    query = f"SELECT tenant FROM {view}"  # noqa: S608 - a name of our own
    assert await connection.fetch(query) == []
    async with connection.transaction():
        await connection.execute("SELECT set_config('switchboard.tenant', 'other', true)")
        assert [row["tenant"] for row in await connection.fetch(query)] == ["other"]
    await connection.close()
    assert {row["tenant"] for row in await ops.fetch(query)} == {"acme", "other"}


async def test_every_view_asks_as_the_one_who_looks(ops: Pool) -> None:
    rows = await ops.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace "
        "AND NOT coalesce(reloptions, '{}') @> '{security_invoker=true}'"
    )
    assert [row["relname"] for row in rows] == []


@pytest.mark.parametrize("view", VIEWS)
async def test_nobody_may_write_through_a_view(view: str, ops: Pool) -> None:
    for role in ("switchboard_app", "switchboard_ops"):
        assert await ops.fetchval("SELECT has_table_privilege($1::name, $2, 'SELECT')", role, view)
        assert not await ops.fetchval("SELECT has_table_privilege($1::name, $2, 'INSERT, UPDATE, DELETE')", role, view)


@pytest.mark.parametrize(
    ("wanted", "by"),
    [("{}", []), ("{}", ["cost_nano_usd"]), ("{}", ["day; DROP TABLE jobs"]), ('{"estimated": "true"}', ["day"])],
)
async def test_only_names_that_reports_know_get_into_a_statement(wanted: str, by: list[str], ops: Pool) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await ops.fetchval("SELECT usage_statement($1, $2)", wanted, by)
