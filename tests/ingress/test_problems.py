"""Every error has one shape, and tells callers nothing of our insides."""

import json

import httpx
import pytest

from ingress.state import Ingress
from tests.ingress.harness import MESSAGES, Running, accepted


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nothing/here", 404, None),
        ("GET", "/v1/agents/", 404, None),
        ("GET", MESSAGES, 405, {"POST"}),
        ("PUT", "/v1/jobs/x", 405, {"GET", "HEAD", "DELETE"}),
        ("POST", "/v1/jobs/x/events", 405, {"GET", "HEAD"}),
    ],
)
async def test_the_routers_errors_are_problems_too(
    client: httpx.AsyncClient, method: str, path: str, status: int, allow: set[str] | None
) -> None:
    response = await client.request(method, path)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["instance"]) == (status, status, path)
    assert problem["title"]
    assert problem["detail"]
    if allow:
        assert set(response.headers["allow"].split(", ")) == allow


async def test_a_fault_of_ours_is_a_500_without_internals_and_a_log_line_with_them(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("internal detail")

    monkeypatch.setattr(Ingress, "authenticate", broken)
    response = await client.get("/v1/agents", headers={"x-request-id": "find-me"})
    assert (response.status_code, response.json()["type"]) == (500, "/problems/internal_error")
    assert "internal detail" not in response.text
    assert response.headers["x-request-id"] == "find-me"
    failed = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "exception" in line]
    assert failed[0]["request_id"] == "find-me"
    (told,) = failed[0]["exception"]
    assert told["type"] == "RuntimeError"
    assert told["frames"][-1].endswith(" broken")
    assert "message" not in told, "it may quote what somebody wrote"


@pytest.mark.parametrize("given", ["abc-123", "a" * 128])
async def test_a_request_id_is_kept(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/health/live", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, 'a"b', "a b"])
async def test_a_request_id_that_could_forge_a_log_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/health/live", headers={"x-request-id": given})
    assert len(response.headers["x-request-id"]) == 36


async def test_one_line_per_request_with_ids_and_without_secrets(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running.client() as client:
        job = await accepted(client, "the private words")
        await client.get(job["events_url"].replace("/events", ""))
    out = capsys.readouterr().out
    lines = [line for line in map(json.loads, out.splitlines()) if line["event"] == "request"]
    assert [(line["method"], line["status"]) for line in lines] == [("POST", 202), ("GET", 200)]
    for line in lines:
        assert line.keys() >= {"request_id", "tenant", "job_id", "duration_ms", "route"}
        assert (line["tenant"], line["job_id"]) == ("a", job["id"])
    token = httpx.URL(job["events_url"]).params["token"]
    written = json.dumps(lines)
    for secret in ("private", "sk-tenant-a", token):
        assert secret not in written


async def test_agents_are_listed_with_what_a_person_needs(client: httpx.AsyncClient) -> None:
    agents = {agent["id"]: agent for agent in (await client.get("/v1/agents")).json()["data"]}
    assert agents.keys() >= {"support", "sales", "advocate"}
    assert agents["support"].keys() == {"id", "object", "label", "description"}


async def test_the_root_says_where_to_go(anonymous: httpx.AsyncClient) -> None:
    about = (await anonymous.get("/")).json()
    assert about["name"] == "switchboard"
    assert about["links"]["agents"] == "/v1/agents"
