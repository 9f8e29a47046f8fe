"""`/v1/endpoints`, `/v1/webhook-secret` and `/v1/deliveries`, as a tenant's admin and an operator use them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import openai
import pytest

from ops.console.app import create_console
from shared.config import Settings
from shared.ids import uuid7
from sql import queries
from tests.conftest import Database, Eventually
from tests.delivery.conftest import Owe, Running, states
from tests.delivery.receiver import Receiver
from tests.delivery.test_webhooks import is_signed
from tests.keys import give_key

PUBLIC = "https://93.184.216.34/hook"
"""An address, so that no name has to be resolved."""


@pytest.fixture
async def doors(
    settings: Settings, database: Database, books: asyncpg.Connection
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """The console's clients by who they are: of acme, of other, an operator."""
    owner = await asyncpg.connect(database.owner)
    for name, tenant, scope in (("acme", "acme", "admin"), ("other", "other", "admin"), ("ops", "other", "operator")):
        await give_key(owner, tenant, f"sk-key-of-{name}", [scope])
    await owner.close()
    app = create_console(settings)
    async with app.router.lifespan_context(app):
        made = {}
        for name in ("acme", "other", "ops"):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            headers = {"authorization": f"Bearer sk-key-of-{name}"}
            made[name] = httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers)
        yield made
        await asyncio.gather(*(client.aclose() for client in made.values()))


async def test_an_endpoints_life(
    doors: dict[str, httpx.AsyncClient],
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    acme = doors["acme"]
    made = await acme.post("/v1/endpoints", json={"url": receiver.url, "event_types": ["job.succeeded"]})
    assert made.status_code == 201, made.text
    endpoint, secret = made.json()["id"], made.json()["secret"]
    assert made.headers["location"] == f"/v1/endpoints/{endpoint}"
    shown = (await acme.get(f"/v1/endpoints/{endpoint}")).json()
    assert "secret" not in shown
    assert shown["secrets"] == 1
    rotated = (await acme.post(f"/v1/endpoints/{endpoint}/rotate", json={"overlap_s": 600})).json()["secret"]
    assert rotated != secret
    async with running():
        await owe(None)
        await eventually(lambda: receiver.posts)
    assert is_signed(receiver.posts[0], secret)
    assert is_signed(receiver.posts[0], rotated)
    off = await acme.patch(f"/v1/endpoints/{endpoint}", json={"disabled": True})
    assert (off.json()["disabled_why"], off.json()["event_types"]) == ("asked", ["job.succeeded"])
    on = await acme.patch(f"/v1/endpoints/{endpoint}", json={"disabled": False, "event_types": []})
    assert (on.json()["disabled_at"], on.json()["event_types"]) == (None, [])
    assert (await acme.delete(f"/v1/endpoints/{endpoint}")).status_code == 200
    assert (await acme.get(f"/v1/endpoints/{endpoint}")).status_code == 404
    assert (await acme.get("/v1/endpoints")).json()["data"] == []


async def test_an_endpoint_may_have_the_bodies_of_openais_webhooks(
    doors: dict[str, httpx.AsyncClient], running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    """Made in ours and changed; one SDK's client then takes each end of a job for a response's."""
    acme = doors["acme"]
    made = (await acme.post("/v1/endpoints", json={"url": receiver.url})).json()
    assert made["format"] == "switchboard"
    changed = await acme.patch(f"/v1/endpoints/{made['id']}", json={"format": "openai"})
    assert (changed.json()["format"], changed.json()["event_types"]) == ("openai", [])
    refused = await acme.post("/v1/endpoints", json={"url": receiver.url, "format": "xml"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "format")
    failed = {"reply": None, "error": {"code": "x", "message": "y", "retryable": False}}
    async with running():
        jobs = [
            await owe(None),
            await owe(None, incomplete="max_output_tokens"),
            await owe(None, state="dead", **failed),
            await owe(None, state="cancelled", **failed),
        ]
        await eventually(lambda: len(receiver.posts) == 4)
    client = openai.OpenAI(api_key="sk-unused", webhook_secret=made["secret"], _strict_response_validation=True)
    events = [client.webhooks.unwrap(post.body.decode(), dict(post.headers)) for post in receiver.posts]
    kinds = ["response.completed", "response.incomplete", "response.failed", "response.cancelled"]
    assert [(event.type, event.data.id) for event in events] == [  # type: ignore[union-attr]
        (kind, f"resp_{job}") for kind, job in zip(kinds, jobs, strict=True)
    ]
    assert [event.id for event in events] == [post.headers["webhook-id"] for post in receiver.posts]
    (shown, *_) = (await acme.get("/v1/deliveries", params={"endpoint_id": made["id"]})).json()["data"]
    assert (await acme.get(f"/v1/deliveries/{shown['id']}")).json()["event"] == receiver.posts[-1].json


async def test_a_callers_secret_is_shown_once_and_signs_what_callbacks_get(
    doors: dict[str, httpx.AsyncClient], running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    first = (await doors["acme"].post("/v1/webhook-secret/rotate")).json()["secret"]
    async with running():
        await owe(receiver.url)
        await eventually(lambda: receiver.posts)
    assert is_signed(receiver.posts[0], first)
    assert (await doors["acme"].post("/v1/webhook-secret/rotate")).json()["secret"] != first
    refused = await doors["ops"].post("/v1/webhook-secret/rotate")  # whose?
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "tenant")
    assert (await doors["ops"].post("/v1/webhook-secret/rotate?tenant=acme")).status_code == 200


async def test_a_delivery_is_looked_at_and_sent_again(
    doors: dict[str, httpx.AsyncClient],
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    job = await owe(receiver.url)
    async with running():
        await eventually(lambda: _are(books, ["delivered"]))
        (listed,) = (await doors["acme"].get("/v1/deliveries", params={"job_id": job})).json()["data"]
        assert (listed["state"], listed["attempts"], listed["error"]) == ("delivered", 1, None)
        path = f"/v1/deliveries/{listed['id']}"
        shown = (await doors["acme"].get(path)).json()
        assert shown["event"] == receiver.posts[0].json
        assert [(one["outcome"], one["status"]) for one in shown["log"]] == [("delivered", 200)]
        replayed = await doors["acme"].post(f"{path}/replay")
        assert replayed.status_code == 202
        await eventually(lambda: len(receiver.posts) == 2)
    assert receiver.posts[0].headers["webhook-id"] == receiver.posts[1].headers["webhook-id"]
    assert (await doors["acme"].get("/v1/deliveries", params={"state": "failed"})).json()["data"] == []
    assert (await doors["other"].get(path)).status_code == 404
    assert (await doors["ops"].get(path)).status_code == 200
    for absent in (uuid7(), "no-id"):
        assert (await doors["acme"].get(f"/v1/deliveries/{absent}")).status_code == 404


async def test_what_is_being_sent_cannot_be_sent_again_now(
    doors: dict[str, httpx.AsyncClient], books: asyncpg.Connection, owe: Owe
) -> None:
    await owe(PUBLIC)
    await books.fetch(queries["claim_deliveries"], 10, 10, 60, 5, 10, "{}")
    delivery = await books.fetchval("SELECT delivery_id::text FROM deliveries")
    refused = await doors["acme"].post(f"/v1/deliveries/{delivery}/replay")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/delivery_under_way")


async def test_pages_of_deliveries_go_on_where_the_last_one_ended(
    doors: dict[str, httpx.AsyncClient], owe: Owe
) -> None:
    for _ in range(5):
        await owe(PUBLIC)
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = (await doors["acme"].get("/v1/deliveries", params=query)).json()
        found += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert len(found) == len(set(found)) == 5
    assert found == sorted(found, reverse=True)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server by which every name leads inside; addresses are what they are."""

    def ask(host: str, port: int, **_how: Any) -> list[Any]:
        address = host if host[0].isdigit() else "10.0.0.7"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("workers.delivery.resolve.socket.getaddrinfo", ask)


class TestWithoutPrivateAddresses:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"delivery_allow_private": False})

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("http://127.0.0.1/", "private"),
            ("https://hooks.example.com/", "private"),  # by name
            ("https://example.com:6379/", "port"),
            ("https://u:p@example.com/", "user or password"),
            ("nonsense", "http or https"),
        ],
    )
    async def test_a_url_that_must_not_be_called_is_refused_with_the_reason(
        self, doors: dict[str, httpx.AsyncClient], inside: None, url: str, why: str
    ) -> None:
        refused = await doors["acme"].post("/v1/endpoints", json={"url": url})
        assert refused.status_code == 422, refused.text
        (fault,) = refused.json()["errors"]
        assert fault["field"] == "url"
        assert why in fault["message"]
        made = (await doors["acme"].post("/v1/endpoints", json={"url": PUBLIC})).json()["id"]
        assert (await doors["acme"].patch(f"/v1/endpoints/{made}", json={"url": url})).status_code == 422


async def test_every_fault_of_a_body_is_named(doors: dict[str, httpx.AsyncClient]) -> None:
    body = {"url": "", "event_types": ["job.merged"], "description": "x" * 201, "secret": "mine"}
    refused = await doors["acme"].post("/v1/endpoints", json=body)
    assert refused.status_code == 422
    assert {fault["field"] for fault in refused.json()["errors"]} == {"url", "event_types/0", "description", "secret"}


async def _are(books: asyncpg.Connection, wanted: list[str]) -> bool:
    return await states(books) == wanted
