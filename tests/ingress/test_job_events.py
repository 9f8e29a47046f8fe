"""The event stream of a job: complete, in order, resumable, and free of charge once its reader has gone."""

import asyncio
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from shared import keys
from tests.conftest import Database, Eventually
from tests.ingress.harness import Running, Served, Worker, accepted, all_events, commit_job, events_of


def shape(events: list[Any]) -> list[tuple[str | None, str]]:
    return [(event.id, event.type) for event in events]


@pytest.fixture
async def ended_job(client: httpx.AsyncClient, worker: Worker) -> dict[str, Any]:
    """Started, said two pieces, succeeded: events 1 to 4."""
    job = await accepted(client)
    await worker.claim()
    await worker.say(job["id"], "one", "two\nlines")
    await worker.end(job["id"], reply="onetwo\nlines")
    return job


async def test_the_stream_of_an_ended_job_tells_everything_and_closes(
    anonymous: httpx.AsyncClient, client: httpx.AsyncClient, ended_job: dict[str, Any]
) -> None:
    events = await all_events(anonymous, ended_job["events_url"])
    assert shape(events) == [
        ("1", "job.started"),
        ("2", "message.delta"),
        ("3", "message.delta"),
        ("4", "job.succeeded"),
    ]
    assert events[2].data == {"delta": "two\nlines"}
    assert events[3].data == (await client.get(f"/v1/jobs/{ended_job['id']}")).json()


async def test_tokens_arrive_while_the_job_runs(server: Served, worker: Worker) -> None:
    async with server.client() as client:
        job = await accepted(client)
        async with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-accel-buffering"] == "no"
            events = (event async for event in events_of(response) if event.type != ":")
            await worker.claim()
            assert (await anext(events)).type == "job.started"
            for piece in ("a", "b"):
                await worker.say(job["id"], piece)
                assert (await anext(events)).data == {"delta": piece}
            await worker.end(job["id"])
            assert [event.type async for event in events] == ["job.succeeded"]


async def test_a_silent_stream_is_kept_alive(server: Served) -> None:
    async with server.client() as client:
        job = await accepted(client)
        async with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
            events = events_of(response)
            assert [(await anext(events)).type for _ in range(3)] == [":"] * 3


@pytest.mark.parametrize("how", ["header", "query"])
async def test_a_reader_resumes_after_the_last_event_it_saw(
    client: httpx.AsyncClient, ended_job: dict[str, Any], how: str
) -> None:
    url = f"/v1/jobs/{ended_job['id']}/events"
    if how == "header":
        events = await all_events(client, url, **{"last-event-id": "2"})
    else:
        events = await all_events(client, f"{url}?last_event_id=2")
    assert shape(events) == [("3", "message.delta"), ("4", "job.succeeded")]


@pytest.mark.parametrize("last", ["4", "5", "ended"])
async def test_a_reader_that_saw_the_end_is_told_to_stop_asking(
    client: httpx.AsyncClient, ended_job: dict[str, Any], last: str
) -> None:
    response = await client.get(f"/v1/jobs/{ended_job['id']}/events", headers={"last-event-id": last})
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "٣", "9" * 30, "0" * 20 + "9" * 30])
async def test_an_id_we_never_sent_is_400(client: httpx.AsyncClient, ended_job: dict[str, Any], last: str) -> None:
    response = await client.get(f"/v1/jobs/{ended_job['id']}/events", params={"last_event_id": last})
    assert (response.status_code, response.json()["type"]) == (400, "/problems/invalid_request")


async def test_a_gap_in_the_capped_stream_is_said(client: httpx.AsyncClient, worker: Worker) -> None:
    job = await accepted(client)
    await worker.claim()
    await worker.say(job["id"], *"abcdefgh", max_events=3)
    await worker.end(job["id"])
    events = await all_events(client, f"/v1/jobs/{job['id']}/events", **{"last-event-id": "1"})
    assert shape(events)[:2] == [(None, "events.truncated"), ("7", "message.delta")]
    assert events[0].data == {"after": 1, "missing": 5}
    assert shape(events)[-1] == ("10", "job.succeeded")


async def test_a_job_redis_forgot_ends_its_stream_from_postgres(
    client: httpx.AsyncClient, redis: Redis, with_keys: Database, ended_job: dict[str, Any]
) -> None:
    await commit_job(with_keys, "a", ended_job["id"], reply="kept")
    await redis.delete(keys.job(ended_job["id"]), keys.events(ended_job["id"]))
    for headers in ({}, {"last-event-id": "2"}):
        [event] = await all_events(client, f"/v1/jobs/{ended_job['id']}/events", **headers)
        assert (event.type, event.id, event.data["reply"]) == ("job.succeeded", "ended", "kept")


async def test_every_way_to_end_has_its_event(client: httpx.AsyncClient, worker: Worker) -> None:
    dead, cancelled = await accepted(client), await accepted(client)
    await client.delete(f"/v1/jobs/{cancelled['id']}")
    await worker.claim()
    await worker.end(dead["id"], "dead", reply=None)
    for job, expected in ((dead, "job.dead"), (cancelled, "job.cancelled")):
        assert (await all_events(client, job["events_url"]))[-1].type == expected


async def test_a_long_stream_is_read_in_pages_without_a_gap(client: httpx.AsyncClient, worker: Worker) -> None:
    job = await accepted(client)
    await worker.claim()
    pieces = [str(n) for n in range(1_000)]
    await worker.say(job["id"], *pieces)
    await worker.end(job["id"])
    events = await all_events(client, f"/v1/jobs/{job['id']}/events")
    assert [event.data["delta"] for event in events[1:-1]] == pieces
    assert [int(event.id) for event in events] == list(range(1, 1_003))


async def test_two_readers_of_one_job_both_see_everything(server: Served, worker: Worker, redis: Redis) -> None:
    async with server.client() as client:
        job = await accepted(client)
        reading = [asyncio.create_task(all_events(client, f"/v1/jobs/{job['id']}/events")) for _ in range(2)]
        await worker.claim()
        await worker.say(job["id"], "a")
        await worker.end(job["id"])
        first, second = await asyncio.gather(*reading)
        assert shape(first) == shape(second) == [("1", "job.started"), ("2", "message.delta"), ("3", "job.succeeded")]


async def test_a_reader_that_leaves_frees_its_place_and_not_the_job(
    server: Served, worker: Worker, redis: Redis, eventually: Eventually
) -> None:
    async def subscribers() -> int:
        return int((await redis.pubsub_numsub(keys.notify_channel(job["id"])))[0][1])

    async def nobody() -> bool:
        return await subscribers() == 0

    async with server.client() as client:
        job = await accepted(client)
        async with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
            reading = events_of(response)  # kept: a generator that is dropped closes the response
            await anext(reading)
            await eventually(subscribers)
        await eventually(nobody)
        assert server.app.state.ingress.notices.watching == 0
        await worker.claim()
        await worker.end(job["id"])
        assert (await client.get(f"/v1/jobs/{job['id']}")).json()["state"] == "succeeded"


async def test_head_does_not_open_a_stream(client: httpx.AsyncClient, running: Running) -> None:
    job = await accepted(client)
    response = await client.head(f"/v1/jobs/{job['id']}/events")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert running.ingress.notices.watching == 0
