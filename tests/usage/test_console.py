"""`GET /v1/usage` on the console: who is told what, and how a question that makes no sense is refused."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from ops.console.app import create_console
from shared.config import Settings
from tests.dead.conftest import Clients
from tests.usage.ledger import Ledger, at

SPAN = "from=2026-11-01&to=2026-12-01"


@pytest.fixture(autouse=True)
async def two_tenants(ledger: Ledger) -> None:
    await ledger.add(at("2026-11-20T10:00:00"), tenant="acme", agent="sales", cost_nano_usd=123_450)
    await ledger.add(at("2026-11-21T10:00:00"), tenant="acme", agent="support", cost_nano_usd=1)
    await ledger.add(at("2026-11-21T10:00:00"), tenant="other", agent="support", cost_nano_usd=10)


async def get(console: Clients, key: str | None, query: str) -> tuple[int, dict[str, Any]]:
    async with console(key) as client:
        response = await client.get(f"/v1/usage?{query}")
    assert response.status_code != 200 or response.headers["cache-control"] == "no-store"
    return response.status_code, response.json()


async def test_a_tenants_own_key_is_told_about_its_tenant(console: Clients) -> None:
    status, report = await get(console, "sk-admin", f"{SPAN}&by=day,agent")
    assert status == 200
    assert {name: report[name] for name in ("object", "from", "to", "by", "filter", "groups")} == {
        "object": "usage_report",
        "from": "2026-11-01T00:00:00.000000Z",
        "to": "2026-12-01T00:00:00.000000Z",
        "by": ["day", "agent"],
        "filter": {"tenant": "acme"},
        "groups": 2,
    }
    assert [(line["group"], line["cost_usd"]) for line in report["data"]] == [
        ({"day": "2026-11-20", "agent": "sales"}, "0.000123450"),
        ({"day": "2026-11-21", "agent": "support"}, "0.000000001"),
    ]
    assert report["totals"]["cost_usd"] == "0.000123451"


@pytest.mark.parametrize("query", ["by=tenant", "by=tenant&tenant=acme", "by=tenant&top=5", "by=tenant&status=ok"])
async def test_whatever_it_asks_it_never_hears_of_another(console: Clients, query: str) -> None:
    _, report = await get(console, "sk-admin", f"{SPAN}&{query}")
    assert [line["group"] for line in report["data"]] == [{"tenant": "acme"}]
    assert report["totals"]["calls"] == 2


async def test_an_operator_is_told_about_all_or_one(console: Clients) -> None:
    _, both = await get(console, "sk-operator", f"{SPAN}&by=tenant")
    assert {line["group"]["tenant"]: line["cost_usd"] for line in both["data"]} == {
        "acme": "0.000123451",
        "other": "0.000000010",
    }
    _, one = await get(console, "sk-operator", f"{SPAN}&by=tenant&tenant=other")
    assert [line["group"]["tenant"] for line in one["data"]] == ["other"]


@pytest.mark.parametrize(
    ("key", "query", "status"),
    [
        (None, "", 401),
        ("sk-wrong", "", 401),
        ("sk-chat-only", "", 403),
        ("sk-admin", "tenant=other", 403),
        ("sk-other-admin", "tenant=acme", 403),
    ],
)
async def test_others_are_told_nothing(console: Clients, key: str | None, query: str, status: int) -> None:
    assert (await get(console, key, query))[0] == status


async def test_all_faults_are_named_at_once(console: Clients) -> None:
    status, problem = await get(console, "sk-admin", "by=day,cost&from=today&top=0&period=year&colour=red&user=%00")
    assert status == 422
    assert {fault["field"] for fault in problem["errors"]} == {"by", "from", "top", "period", "colour", "user"}
    status, problem = await get(console, "sk-admin", f"{SPAN}&period=day&by=agent&fill=true")
    assert (status, [fault["field"] for fault in problem["errors"]]) == (422, ["period", "fill"])


@pytest.mark.parametrize("period", ["hour", "day", "week", "month"])
async def test_a_period_is_the_current_one(console: Clients, ledger: Ledger, period: str) -> None:
    await ledger.add(datetime.now(UTC), feature="of now", cost_nano_usd=7)
    _, report = await get(console, "sk-admin", f"period={period}&by=feature&feature=of+now")
    # The turn of the hour may lie between the two lines above: then there is nothing, and nothing else either.
    assert [line["cost_usd"] for line in report["data"]] in (["0.000000007"], [])
    assert report["from"].endswith(":00:00.000000Z")


async def test_without_the_operators_role_a_tenant_must_be_named(settings: Settings, with_keys: None) -> None:
    app = create_console(settings.model_copy(update={"ops_database_url": None}))
    headers = {"authorization": "Bearer sk-operator"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console", headers=headers) as client,
    ):
        refused = await client.get(f"/v1/usage?{SPAN}")
        told = await client.get(f"/v1/usage?{SPAN}&tenant=other")
    assert (refused.status_code, [fault["field"] for fault in refused.json()["errors"]]) == (422, ["tenant"])
    assert told.json()["totals"]["cost_usd"] == "0.000000010"
