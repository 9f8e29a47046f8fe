"""`/v1/alerts` and `switchboard alerts`: what may be asked for, and by whom."""

import asyncio
import json
import subprocess
import sys

import asyncpg
import httpx
import pytest

from shared.config import Settings
from tests.alerts.conftest import DOLLAR, NOW, Spend
from tests.delivery.test_console import PUBLIC, doors  # noqa: F401 - a fixture
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of
from workers.alerts.judge import Judge

Doors = dict[str, httpx.AsyncClient]
SLACK = [{"kind": "slack", "to": PUBLIC}]


async def test_a_rules_life(doors: Doors, judge: Judge, spend: Spend) -> None:  # noqa: F811 - the fixture
    acme = doors["acme"]
    made = await acme.put("/v1/alerts/costs", json={"metric": "daily_cost_usd", "targets": SLACK})
    assert made.status_code == 201, made.text
    assert made.json()["thresholds"] == ["5"]
    again = await acme.put("/v1/alerts/costs", json={"metric": "daily_cost_usd", "thresholds": [2.5], "targets": SLACK})
    assert (again.status_code, again.json()["thresholds"]) == (200, ["2.5"])
    await spend(3 * DOLLAR)
    assert await judge.judge(NOW) == 1
    (event,) = (await acme.get("/v1/alert-events")).json()["data"]
    assert (event["alert"], event["value"], event["threshold"], event["period"]) == ("costs", "3", "2.5", "2026-11-21")
    assert (await acme.post("/v1/alerts/costs/test")).status_code == 202
    assert [one["event_type"] for one in (await acme.get("/v1/deliveries")).json()["data"]] == ["alert.crossed"] * 2
    assert (await acme.delete("/v1/alerts/costs")).status_code == 200
    assert (await acme.get("/v1/alerts/costs")).status_code == 404
    assert len((await acme.get("/v1/alert-events")).json()["data"]) == 2


async def test_tenants_see_their_own_and_operators_everybodys(doors: Doors) -> None:  # noqa: F811 - the fixture
    body = {"metric": "p99_s", "targets": SLACK}
    assert (await doors["acme"].put("/v1/alerts/slow", json=body)).status_code == 201
    assert (await doors["ops"].put("/v1/alerts/slow", json=body)).status_code == 201  # the deployment's
    assert (await doors["ops"].put("/v1/alerts/slow?tenant=acme", json=body)).status_code == 200
    assert (await doors["other"].get("/v1/alerts/slow")).status_code == 404
    assert (await doors["other"].get("/v1/alerts", params={"tenant": "acme"})).status_code == 403
    assert [one["tenant"] for one in (await doors["acme"].get("/v1/alerts")).json()["data"]] == ["acme"]
    assert [one["tenant"] for one in (await doors["ops"].get("/v1/alerts")).json()["data"]] == [None, "acme"]
    assert (await doors["ops"].put("/v1/alerts/slow?tenant=nobody", json=body)).status_code == 404
    assert (await doors["acme"].put("/v1/alerts/slow?tenant=*", json=body)).status_code == 403


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "tool_failures"}, "tools are not run yet"),
        ({"metric": "csat"}, "satisfaction is not collected yet"),
        ({"metric": "speed"}, "must be one of budget, "),
        ({"thresholds": [-1]}, "more than 0"),
        ({"thresholds": ["much"]}, "must be a number"),
        ({"thresholds": []}, "must not be empty"),
        ({"metric": "error_rate", "thresholds": [5]}, "0.5 is 50 %"),
        ({"metric": "endpoint_disabled", "thresholds": [1]}, "has no thresholds"),
        ({"metric": "budget", "scopes": ["global-day"]}, "a budget of the deployment"),
        ({"scopes": ["user-month"]}, "are of the metric `budget`"),
        ({"least": 5, "metric": "daily_cost_usd"}, "`least` is of the metrics"),
        ({"targets": []}, "at least 1"),
        ({"targets": [{"kind": "email", "to": "ada"}]}, "an e-mail address"),
        ({"targets": [{"kind": "email", "to": "ada@example.org"}]}, "SWITCHBOARD_SMTP_URL is not set"),
        ({"targets": [{"kind": "slack", "to": "nonsense"}]}, "http or https"),
        ({"targets": [{"kind": "pager", "to": "x"}]}, "'slack', 'email' or 'webhook'"),
    ],
)
async def test_a_rule_that_could_not_be_kept_is_refused_in_words(
    doors: Doors,  # noqa: F811 - the fixture
    change: dict[str, object],
    words: str,
) -> None:
    body = {"metric": "p50_s", "targets": SLACK, **change}
    refused = await doors["acme"].put("/v1/alerts/x", json=body)
    assert refused.status_code == 422, refused.text
    assert words in refused.text
    assert (await doors["acme"].get("/v1/alerts/x")).status_code == 404


async def test_a_name_is_short_and_plain(doors: Doors) -> None:  # noqa: F811 - the fixture
    body = {"metric": "p50_s", "targets": SLACK}
    for name in ("A", "a%20b", "x" * 64, "*"):
        refused = await doors["acme"].put(f"/v1/alerts/{name}", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "name")


async def switchboard(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "ops", *arguments],
        cwd=REPOSITORY,
        env=environment_of(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


async def test_the_command_line_sets_tests_and_removes(settings: Settings, books: asyncpg.Connection) -> None:
    made = await switchboard(
        settings, "alerts", "set", "costs", "daily_cost_usd", "--threshold", "7.50", "--slack", PUBLIC, "--json"
    )
    assert made.returncode == 0, made.stderr
    (rule,) = json.loads(made.stdout)
    assert (rule["tenant"], rule["thresholds"], rule["updated_by"][:4]) == (None, ["7.5"], "cli:")
    assert (await switchboard(settings, "alerts", "test", "costs")).returncode == 0
    history = await switchboard(settings, "alerts", "history")
    assert history.stdout.split("\t")[1:4] == ["-", "costs", "test"]
    refused = await switchboard(settings, "alerts", "set", "x", "csat", "--tenant", "acme", "--slack", PUBLIC)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "metric: cannot be judged: satisfaction is not collected yet\n"
    assert (await switchboard(settings, "alerts", "remove", "costs")).returncode == 0
    assert await books.fetchval("SELECT count(*) FROM alerts") == 0


async def test_the_command_line_makes_endpoints_and_sends_again(settings: Settings, books: asyncpg.Connection) -> None:
    made = await switchboard(settings, "endpoints", "create", "acme", PUBLIC, "--format", "openai")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("whsec_")
    assert made.stdout.strip() not in made.stderr
    listed = await switchboard(settings, "endpoints", "list", "--tenant", "acme")
    endpoint = listed.stdout.split("\t")[0]
    assert "\topenai\t" in listed.stdout
    changed = await switchboard(
        *(settings, "endpoints", "set", endpoint, "--disable", "--format", "switchboard", "--event", "job.dead")
    )
    assert (changed.returncode, changed.stdout.split("\t")[3:6]) == (0, ["job.dead", "switchboard", "asked"])
    await books.execute(
        "INSERT INTO deliveries (tenant_id, url, event_type, sequence, state, finished_at, failures, body) "
        "VALUES ('acme', $1, 'alert.crossed', 1, 'failed', now(), 8, '{}')",
        PUBLIC,
    )
    assert "\tfailed\t" in (await switchboard(settings, "deliveries", "list")).stdout
    replayed = await switchboard(settings, "deliveries", "replay", "--failed", "--tenant", "acme")
    assert (replayed.returncode, replayed.stderr) == (0, "1 deliveries\n")
    row = await books.fetchrow("SELECT state, failures, finished_at FROM deliveries")
    assert tuple(row) == ("parked", 0, None)
    unknown = await switchboard(settings, "deliveries", "show", "0192f0c1-7a3c-7e11-9b1e-2f6d7c1a0b42")
    assert (unknown.returncode, unknown.stderr) == (1, "switchboard: There is no such delivery.\n")
