"""Policies over HTTP: who says which, what a refusal looks like, what callers see of a merged message."""

import asyncio

import httpx
import pytest

from agents.api import Agent
from tests.ingress.harness import MESSAGES, Running, Served, Worker, accepted, all_events


async def two_merged(client: httpx.AsyncClient) -> tuple[dict[str, str], dict[str, str]]:
    first = await accepted(client, "one", policy="merge")
    second = await accepted(client, "two", policy="merge", conversation_id=first["conversation_id"])
    return first, second


async def started_now(worker: Worker, job_id: str) -> None:
    """The window of a merge is over, and the job is claimed."""
    await worker.commands.run("ZADD", "arq:queue:debounce", "XX", 1, job_id)
    assert await worker.claim() == [job_id]


async def test_a_busy_conversation_answers_409_that_no_sdk_retries(client: httpx.AsyncClient) -> None:
    job = await accepted(client)
    body = {"message": "me too", "conversation_id": job["conversation_id"], "policy": "reject"}
    refused = await client.post(MESSAGES, json=body)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conversation_busy")
    assert refused.headers["x-should-retry"] == "false"
    assert (await client.delete(f"/v1/jobs/{job['id']}")).json()["state"] == "cancelled"
    assert (await client.post(MESSAGES, json=body)).status_code == 202


async def test_an_unknown_policy_is_a_fault_of_the_body(client: httpx.AsyncClient) -> None:
    response = await client.post(MESSAGES, json={"message": "x", "policy": "drop"})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "policy")


async def test_the_agents_policy_holds_where_the_caller_says_none(
    client: httpx.AsyncClient, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent: type[Agent] = type(running.ingress.agents["support"])
    monkeypatch.setattr(agent, "policy", "reject")
    job = await accepted(client)
    body = {"message": "me too", "conversation_id": job["conversation_id"]}
    assert (await client.post(MESSAGES, json=body)).status_code == 409
    assert (await client.post(MESSAGES, json={**body, "policy": "queue"})).status_code == 202


async def test_a_caller_of_a_merged_message_is_told_the_reply_of_the_one_that_answers_for_it(
    server: Served, worker: Worker
) -> None:
    async with server.client() as client:
        first, second = await two_merged(client)
        seen = (await client.get(f"/v1/jobs/{first['id']}")).json()
        assert (seen["state"], seen["merged_into"], seen["reply"]) == ("merged", second["id"], None)
        assert (seen["finished_at"], seen["position"]) == (None, None)
        waiting = asyncio.ensure_future(client.get(f"/v1/jobs/{first['id']}", headers={"prefer": "wait=10"}))
        streaming = asyncio.ensure_future(all_events(client, f"/v1/jobs/{first['id']}/events"))
        await started_now(worker, second["id"])
        await worker.end(second["id"], reply="to both")
        waited, events = (await waiting).json(), await streaming
    assert (waited["state"], waited["merged_into"], waited["reply"]) == ("merged", second["id"], "to both")
    assert [event.type for event in events] == ["job.merged"]
    assert events[-1].data["reply"] == "to both"


async def test_a_merged_message_cannot_be_cancelled_by_itself(client: httpx.AsyncClient) -> None:
    first, second = await two_merged(client)
    refused = await client.delete(f"/v1/jobs/{first['id']}")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/job_ended")
    assert (await client.delete(f"/v1/jobs/{second['id']}")).status_code == 200
    ended = (await client.get(f"/v1/jobs/{first['id']}")).json()
    assert (ended["state"], ended["error"]["code"]) == ("merged", "cancelled"), "it shares the fate of its survivor"


async def test_the_same_message_twice_is_merged_once(client: httpx.AsyncClient) -> None:
    first, second = await two_merged(client)
    body = {"message": "two", "policy": "merge", "conversation_id": first["conversation_id"]}
    tries = [await client.post(MESSAGES, json=body, headers={"idempotency-key": "k"}) for _ in range(2)]
    assert [response.status_code for response in tries] == [202, 200]
    assert (await client.get(f"/v1/jobs/{second['id']}")).json()["merged_into"] == tries[0].json()["id"]
