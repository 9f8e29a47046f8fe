"""The console's HTTP API: who may see and do what, and the shapes of its answers."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from ops.console.app import create_console
from ops.console.asks import cursor_of
from shared.config import Settings
from shared.ids import uuid7
from tests.dead.conftest import Clients
from tests.dead.graveyard import bury, kill, settings_with
from tests.ingress.harness import Worker
from tests.sql.shapes import CREATED_US
from tests.turn.deployment import TENANT, Deployment

ALL = "/v1/dead-jobs"
NOBODYS = "01990000-0000-7000-8000-000000000000"
"""The same one in every process that collects these tests."""


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["data"]]


@pytest.fixture
async def three(deployment: Deployment) -> list[str]:
    """Dead jobs of different tenants, agents, errors and ages; the newest first."""
    dsn = deployment.settings.database_url
    return [
        await bury(dsn, age_s=10, code="refusal", agent="sales"),
        await bury(dsn, age_s=20, tenant="other"),
        await bury(dsn, age_s=30, state="expired", code="expired"),
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ALL),
        ("GET", f"{ALL}/{NOBODYS}"),
        ("POST", f"{ALL}/{NOBODYS}/retry"),
        ("POST", f"{ALL}/retry"),
        ("DELETE", f"{ALL}/{NOBODYS}"),
        ("GET", "/v1/queues"),
        ("GET", "/metrics"),
    ],
)
async def test_no_key_and_too_small_a_key_open_nothing(console: Clients, method: str, path: str) -> None:
    for key, status, code in (
        (None, 401, "unauthorized"),
        ("sk-made-up-key", 401, "unauthorized"),
        ("sk-chat-only", 403, "forbidden"),
    ):
        async with console(key) as client:
            answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{code}"), key
        assert answer.headers["content-type"] == "application/problem+json"


async def test_an_operator_sees_every_tenant_and_an_admin_its_own(console: Clients, three: list[str]) -> None:
    async with console("sk-operator") as operator, console("sk-admin") as admin, console("sk-other-admin") as other:
        assert ids(await operator.get(ALL)) == three
        assert ids(await operator.get(ALL, params={"tenant": "other"})) == [three[1]]
        assert ids(await admin.get(ALL)) == [three[0], three[2]]
        assert ids(await other.get(ALL)) == [three[1]]


async def test_another_tenants_job_is_as_unknown_as_one_that_never_was(console: Clients, three: list[str]) -> None:
    async with console("sk-other-admin") as stranger, console("sk-admin") as owner:
        answers = []
        for job_id in (three[0], uuid7(), "no-id"):
            for method, path in (("GET", ""), ("POST", "/retry"), ("DELETE", "")):
                answer = await stranger.request(method, f"{ALL}/{job_id}{path}")
                answers.append((answer.status_code, answer.json()["detail"]))
        assert set(answers) == {(404, "There is no such dead job.")}
        assert (await stranger.get(ALL, params={"tenant": TENANT})).status_code == 403
        assert (await stranger.post(f"{ALL}/retry", json={"filter": {"tenant": TENANT}})).status_code == 403
        assert [one["id"] for one in (await stranger.post(f"{ALL}/retry")).json()["data"]] == [three[1]]
        assert (await owner.get(f"{ALL}/{three[0]}")).json()["disposition"] == "open"


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"agent": "sales"}, [0]),
        ({"error_code": "upstream_unavailable"}, [1]),
        ({"state": "expired"}, [2]),
        ({"state": "expired", "agent": "sales"}, []),
        ({"disposition": "any"}, [0, 1, 2]),
        ({"disposition": "retried"}, []),
        ({"disposition": "discarded"}, []),
        ({"older_than_s": 1e9}, []),
        ({"newer_than_s": 1e9}, [0, 1, 2]),
        ({"newer_than_s": 1e9, "older_than_s": 1}, [0, 1, 2]),
    ],
)
async def test_filters_narrow_the_list(
    console: Clients, three: list[str], params: dict[str, Any], found: list[int]
) -> None:
    async with console("sk-operator") as client:
        assert ids(await client.get(ALL, params=params)) == [three[n] for n in found]


async def test_ages_count_from_the_end_of_the_job(console: Clients, deployment: Deployment) -> None:
    dsn, now_age_s = deployment.settings.database_url, (CREATED_US - time.time_ns() // 1_000) / 1_000_000
    fresh, stale = await bury(dsn, age_s=now_age_s + 60), await bury(dsn, age_s=now_age_s + 7_200)
    async with console("sk-operator") as client:
        assert ids(await client.get(ALL, params={"newer_than_s": 3_600})) == [fresh]
        assert ids(await client.get(ALL, params={"older_than_s": 3_600})) == [stale]
        batch = await client.post(f"{ALL}/retry", json={"filter": {"older_than_s": 3_600}})
        assert [one["id"] for one in batch.json()["data"]] == [stale]


async def test_pages_follow_each_other_without_gap_or_repeat(console: Clients, deployment: Deployment) -> None:
    dsn = deployment.settings.database_url
    buried = [await bury(dsn, age_s=50) for _ in range(3)] + [await bury(dsn, age_s=10 + n) for n in range(4)]
    seen: list[str] = []
    async with console("sk-operator") as client:
        params: dict[str, Any] = {"limit": 3}
        while True:
            page = (await client.get(ALL, params=params)).json()
            seen += [job["id"] for job in page["data"]]
            if page["next_cursor"] is None:
                break
            assert len(page["data"]) == 3
            params["cursor"] = page["next_cursor"]
            await bury(dsn, age_s=1)  # a new one at the front moves nothing
    assert sorted(seen) == sorted(buried)


async def test_every_fault_of_a_request_is_named_at_once(console: Clients, three: list[str]) -> None:
    async with console("sk-operator") as client:
        listed = await client.get(ALL, params={"limit": "0", "state": "gone", "colour": "red"})
        retried = await client.post(f"{ALL}/{three[0]}/retry", json={"position": "front", "edit": {"reply": "x"}})
        cursor = await client.get(ALL, params={"cursor": "AAAA"})
        unreadable = await client.post(f"{ALL}/retry", content=b"{")
    assert [fault["field"] for fault in listed.json()["errors"]] == ["state", "limit", "colour"]
    assert [fault["field"] for fault in retried.json()["errors"]] == ["position", "edit/reply"]
    assert [fault["field"] for fault in cursor.json()["errors"]] == ["cursor"]
    assert [one.status_code for one in (listed, retried, cursor, unreadable)] == [422, 422, 422, 400]


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", f"{ALL}?tenant=%00", "", 422),
        ("GET", f"{ALL}/{{id}}?tenant=a%00", "", 422),
        ("DELETE", f"{ALL}/{{id}}?tenant=%00", "", 422),
        ("GET", f"{ALL}?cursor={cursor_of({'finished_us': 2**70, 'job_id': uuid7(), 'run': 1})}", "", 422),
        ("GET", f"{ALL}?cursor={cursor_of({'finished_us': 1, 'job_id': uuid7(), 'run': 2**40})}", "", 422),
        ("POST", f"{ALL}/retry", '{"filter": {"agent": "\\u0000"}}', 422),
        ("POST", f"{ALL}/retry", "[" * 100_000, 400),
        ("POST", f"{ALL}/{{id}}/retry", '{"edit":' + "[" * 100_000, 400),
        ("GET", f"{ALL}/retry", "", 405),
        ("DELETE", f"{ALL}/retry", "", 405),
    ],
)
async def test_what_no_server_could_store_or_read_is_refused_before_it_is_asked(
    console: Clients, three: list[str], method: str, path: str, content: str, status: int
) -> None:
    async with console("sk-operator") as client:
        answer = await client.request(method, path.replace("{id}", three[0]), content=content)
    assert answer.status_code == status, answer.text
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


async def test_a_whole_number_may_be_written_with_a_fraction(console: Clients, three: list[str]) -> None:
    async with console("sk-operator") as client:
        batch = await client.post(f"{ALL}/retry", content=b'{"limit": 2.0}')
    assert (batch.status_code, len(batch.json()["data"])) == (202, 2)


async def test_one_is_shown_with_everything_and_retried_with_changes(console: Clients, deployment: Deployment) -> None:
    job_id = await kill(deployment, metadata={"order": 7})
    async with console("sk-admin") as client:
        shown = (await client.get(f"{ALL}/{job_id}")).json()
        (run,) = shown["runs"]
        assert (run["payload"]["message"], run["attempts"], run["state"]) == ("doomed", 1, "dead")
        assert run["attempt_errors"][0]["code"] == shown["error"]["code"] == "upstream_rejected"
        assert (shown["disposition"], shown["metadata"], shown["tenant"]) == ("open", {"order": 7}, TENANT)
        assert float(shown["cost_usd"]) >= 0
        body = {"position": "in_place", "edit": {"message": "Better?"}}
        answer = await client.post(f"{ALL}/{job_id}/retry", json=body)
        assert answer.status_code == 202
        assert answer.json() == {
            "id": job_id, "object": "dead_job.retry", "tenant": TENANT, "outcome": "queued", "run": 2, "position": 0,
            "job": f"/v1/jobs/{job_id}",
        }  # fmt: skip
        again = await client.post(f"{ALL}/{job_id}/retry", json=body)
        assert (again.status_code, again.json()["outcome"]) == (200, "repeated")
        other = await client.post(f"{ALL}/{job_id}/retry")
        assert (other.status_code, other.json()["type"]) == (409, "/problems/job_live")
        async with deployment.worker():
            assert (await deployment.ended(job_id)).state == "succeeded"
        shown = (await client.get(f"{ALL}/{job_id}")).json()
    assert (shown["disposition"], shown["retry_run"], shown["retry_position"]) == ("retried", 2, "in_place")
    assert shown["resolved_by"].startswith("key:")
    assert [run["state"] for run in shown["runs"]] == ["dead", "succeeded"]
    assert shown["runs"][0]["payload"]["message"] == "doomed"
    assert shown["runs"][0]["retry_payload"]["message"] == "Better?"


async def test_an_edit_with_faults_is_refused_field_by_field(console: Clients, three: list[str]) -> None:
    async with console("sk-admin") as client:
        answer = await client.post(f"{ALL}/{three[0]}/retry", json={"edit": {"agent": "nobody", "message": ""}})
        assert answer.status_code == 422
        assert [fault["field"] for fault in answer.json()["errors"]] == ["edit/agent", "edit/message"]
        assert (await client.get(f"{ALL}/{three[0]}")).json()["disposition"] == "open"


async def test_a_bulk_retry_goes_on_from_its_cursor_and_tells_what_it_refused(
    console: Clients, deployment: Deployment
) -> None:
    dsn = deployment.settings.database_url
    jobs = [await bury(dsn) for _ in range(4)]
    broken = await bury(dsn, payload={})
    left_out = await bury(dsn, agent="sales")
    outcomes: dict[str, str] = {}
    async with console("sk-operator") as client:
        body: dict[str, Any] = {"filter": {"agent": "support"}, "limit": 2}
        calls = 0
        while True:
            calls += 1
            batch = (await client.post(f"{ALL}/retry", json=body)).json()
            outcomes |= {one["id"]: one["outcome"] for one in batch["data"]}
            if batch["next_cursor"] is None:
                break
            body["cursor"] = batch["next_cursor"]
        assert ids(await client.get(ALL)) == [left_out, broken]
    assert calls == 3
    assert outcomes == {**dict.fromkeys(jobs, "queued"), broken: "refused"}
    async with deployment.worker():
        ended = await asyncio.gather(*(deployment.ended(job_id) for job_id in jobs))
    assert {record.state for record in ended} == {"succeeded"}


async def test_a_discarded_job_is_shown_but_not_open(console: Clients, three: list[str]) -> None:
    async with console("sk-admin") as client:
        for _ in range(2):
            answer = await client.delete(f"{ALL}/{three[0]}")
            assert (answer.status_code, answer.json()["disposition"]) == (200, "discarded")
        assert ids(await client.get(ALL)) == [three[2]]
        assert ids(await client.get(ALL, params={"disposition": "discarded"})) == [three[0]]
        refused = await client.post(f"{ALL}/{three[0]}/retry")
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/dead_job_discarded")
        await client.post(f"{ALL}/{three[2]}/retry")
        late = await client.delete(f"{ALL}/{three[2]}")
        assert (late.status_code, late.json()["type"]) == (409, "/problems/dead_job_retried")


async def test_the_queues_are_counted_for_operators(console: Clients, deployment: Deployment) -> None:
    worker = Worker(deployment.commands)
    for text, conversation in (("head", "c1"), ("follower", "c1"), ("other", "c2")):
        await deployment.say(text, conversation=conversation)
    async with console("sk-operator") as client, console("sk-admin") as admin:
        assert (await admin.get("/v1/queues")).status_code == 403
        (idle,) = (await client.get("/v1/queues")).json()["data"]
        assert idle.pop("oldest_age_s") >= 0
        assert idle == {
            "queue": "default", "depth": 3, "due": 2, "delayed": 0, "in_flight": 0, "live_workers": 0,
            "slots": 0, "slots_per_worker": 100, "utilisation": None, "desired_workers": 1,
        }  # fmt: skip
        assert len(await worker.claim(1)) == 1
        (busy,) = (await client.get("/v1/queues")).json()["data"]
        assert [busy[name] for name in ("depth", "due", "in_flight", "live_workers", "utilisation")] == [
            2,
            1,
            1,
            1,
            0.01,
        ]
        metrics = await client.get("/metrics")
    lines = metrics.text.splitlines()
    assert 'switchboard_queue_depth{queue="default"} 2.0' in lines
    assert 'switchboard_queue_in_flight{queue="default"} 1.0' in lines
    assert 'switchboard_queue_desired_workers{queue="default"} 1.0' in lines
    assert metrics.headers["content-type"].startswith("text/plain")


async def test_health_needs_no_key(console: Clients) -> None:
    async with console(None) as client:
        assert (await client.get("/health/live")).json() == {"status": "ok"}
        ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["parts"]) == (200, {"redis": "ok", "postgres": "ok"})


def test_without_the_operators_role_an_operator_must_name_a_tenant(
    settings: Settings, with_keys: None, deployment: Deployment
) -> None:
    app = create_console(settings_with(settings, ops_database_url=None))
    with TestClient(app, headers={"authorization": "Bearer sk-operator"}) as client:
        refused = client.get(ALL)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "tenant")
        assert client.get(ALL, params={"tenant": TENANT}).status_code == 200
