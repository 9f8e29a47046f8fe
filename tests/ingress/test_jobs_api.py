"""Looking at a job, waiting for its end, cancelling it; and that nobody else can."""

import asyncio
import time

import httpx
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.ids import uuid7
from tests.conftest import Database, Eventually
from tests.ingress.harness import Running, Served, Worker, accepted, commit_job


async def test_a_job_is_shown_from_queued_to_its_reply(client: httpx.AsyncClient, worker: Worker) -> None:
    job = await accepted(client)
    url = f"/v1/jobs/{job['id']}"
    await worker.claim()
    running = await client.get(url)
    await worker.end(job["id"], reply="the reply")
    ended = await client.get(url)
    assert (running.json()["state"], running.json()["attempts"]) == ("running", 1)
    assert running.headers["retry-after"] == "1"
    assert (ended.json()["state"], ended.json()["reply"]) == ("succeeded", "the reply")
    assert "retry-after" not in ended.headers


async def test_a_job_redis_forgot_is_answered_from_postgres(
    client: httpx.AsyncClient, redis: Redis, with_keys: Database
) -> None:
    job = await accepted(client)
    await commit_job(with_keys, "a", job["id"], reply="kept")
    await redis.delete(keys.job(job["id"]))
    response = await client.get(f"/v1/jobs/{job['id']}")
    assert (response.status_code, response.json()["reply"]) == (200, "kept")


async def test_unknown_malformed_and_foreign_ids_get_the_same_404(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, with_keys: Database
) -> None:
    foreign, archived = (await accepted(stranger))["id"], uuid7()
    await commit_job(with_keys, "b", archived, reply="secret")
    answers = []
    for job_id in (foreign, archived, uuid7(), "nonsense", foreign.upper(), "%00"):
        for method, suffix in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            response = await client.request(method, f"/v1/jobs/{job_id}{suffix}")
            answers.append((response.status_code, response.json()["type"], response.json()["detail"]))
    assert set(answers) == {(404, "/problems/not_found", "There is no such job.")}
    assert (await stranger.get(f"/v1/jobs/{foreign}")).json()["state"] == "queued"


async def test_the_read_token_opens_its_job_only(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    one, other = await accepted(client), await accepted(client)
    token = {"token": httpx.URL(one["events_url"]).params["token"]}
    opened = await anonymous.get(f"/v1/jobs/{one['id']}", params=token)
    assert (opened.status_code, opened.json()["id"]) == (200, one["id"])
    assert opened.headers["access-control-allow-origin"] == "*"
    assert (await anonymous.get(f"/v1/jobs/{other['id']}", params=token)).status_code == 401
    assert (await anonymous.delete(f"/v1/jobs/{one['id']}", params=token)).status_code == 401


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: "b" + t[1:], lambda _t: "", lambda _t: "a.é"])
async def test_a_changed_token_opens_nothing(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, change: object
) -> None:
    job = await accepted(client)
    token = change(httpx.URL(job["events_url"]).params["token"])  # type: ignore[operator]
    for path in ("", "/events"):
        response = await anonymous.get(f"/v1/jobs/{job['id']}{path}", params={"token": token})
        assert (response.status_code, response.json()["type"]) == (401, "/problems/unauthorized")


async def test_a_long_poll_answers_when_the_job_ends(
    running: Running, client: httpx.AsyncClient, worker: Worker, eventually: Eventually
) -> None:
    job = await accepted(client)
    polling = asyncio.create_task(client.get(f"/v1/jobs/{job['id']}", headers={"prefer": "respond-async, wait=60"}))
    await eventually(lambda: running.ingress.notices.watching == 1)
    await worker.claim()
    await worker.say(job["id"], "not", " yet")
    await worker.end(job["id"])
    response = await polling
    assert response.json()["state"] == "succeeded", "the answer when the time is over would be what was read before"
    assert response.headers["preference-applied"] == "wait=60"
    assert running.ingress.notices.watching == 0


async def test_a_long_poll_answers_with_the_job_as_it_is_when_the_time_is_over(
    running: Running, client: httpx.AsyncClient
) -> None:
    job = await accepted(client)
    started_s = time.monotonic()
    response = await client.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=1"})
    assert 0.99 < time.monotonic() - started_s < running.settings.long_poll_max_s
    assert (response.status_code, response.json()["state"]) == (200, "queued")
    assert response.headers["retry-after"] == "1"


async def test_a_wait_is_capped(running: Running, client: httpx.AsyncClient, worker: Worker) -> None:
    job = await accepted(client)
    await worker.claim()
    await worker.end(job["id"])
    response = await client.get(f"/v1/jobs/{job['id']}", headers={"prefer": 'wait="999999"; x=1'})
    assert response.headers["preference-applied"] == f"wait={running.settings.long_poll_max_s}"


@pytest.mark.parametrize("prefer", ["wait", "wait=0", "wait=-1", "wait=soon", "respond-async"])
async def test_a_preference_that_says_nothing_is_ignored(client: httpx.AsyncClient, prefer: str) -> None:
    job = await accepted(client)
    response = await client.get(f"/v1/jobs/{job['id']}", headers={"prefer": prefer})
    assert response.status_code == 200
    assert "preference-applied" not in response.headers


async def test_a_long_poller_that_leaves_frees_its_place(server: Served, redis: Redis, eventually: Eventually) -> None:
    async with server.client() as client:
        job = await accepted(client)
        polling = asyncio.create_task(client.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=60"}))
        await eventually(lambda: _subscribers(redis, job["id"]))
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        await eventually(lambda: _nobody_subscribed(redis, job["id"]))
        assert (await client.get(f"/v1/jobs/{job['id']}")).json()["state"] == "queued"


async def test_cancelling_a_queued_job_ends_it(client: httpx.AsyncClient, worker: Worker) -> None:
    job = await accepted(client)
    for _ in range(2):  # the second time it is cancelled already
        response = await client.delete(f"/v1/jobs/{job['id']}")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    assert await worker.claim() == []


async def test_cancelling_a_running_job_asks_its_worker(
    client: httpx.AsyncClient, worker: Worker, redis: Redis
) -> None:
    job = await accepted(client)
    await worker.claim()
    response = await client.delete(f"/v1/jobs/{job['id']}")
    assert (response.status_code, response.json()["state"]) == (202, "running")
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert await redis.smembers(f"{keys.queue('default')}:cancel:tests") == {job["id"].encode()}


async def test_cancelling_an_ended_job_is_409(
    client: httpx.AsyncClient, worker: Worker, redis: Redis, with_keys: Database
) -> None:
    job = await accepted(client)
    await worker.claim()
    await worker.end(job["id"])
    first = await client.delete(f"/v1/jobs/{job['id']}")
    await commit_job(with_keys, "a", job["id"], reply="x")
    await redis.delete(keys.job(job["id"]))
    second = await client.delete(f"/v1/jobs/{job['id']}")
    for response in (first, second):
        assert (response.status_code, response.json()["type"]) == (409, "/problems/job_ended")


async def test_a_stranger_cannot_cancel(client: httpx.AsyncClient, stranger: httpx.AsyncClient, worker: Worker) -> None:
    job = await accepted(client)
    assert (await stranger.delete(f"/v1/jobs/{job['id']}")).status_code == 404
    assert await worker.claim() == [job["id"]]


async def _subscribers(redis: Redis, job_id: str) -> bool:
    return bool((await redis.pubsub_numsub(keys.notify_channel(job_id)))[0][1])


async def _nobody_subscribed(redis: Redis, job_id: str) -> bool:
    return not await _subscribers(redis, job_id)
