"""Trying to reach another tenant's data through every endpoint of ingress and console, with the neighbour's keys.

Endpoints come from the route tables. Behind a PgBouncer the same runs again (`make test-pgbouncer`).
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.routing import Route

from ingress.app import ROUTES as INGRESS_ROUTES
from ops.console.app import ROUTES as CONSOLE_ROUTES
from ops.console.app import create_console
from shared.config import Settings
from tests.ingress.harness import MESSAGES, sha256, started
from tests.tenants.crossing_rows import ALERT, CHANNELS, CONVERSATION, MARK, NEIGHBOUR, USER, VICTIM, snapshot


def endpoints(routes: list[Route]) -> Iterator[tuple[str, str]]:
    for route in routes:
        methods = route.methods or {
            method for method in ("GET", "POST", "PATCH", "PUT", "DELETE") if hasattr(route.endpoint, method.lower())
        }
        for method in sorted(methods - {"HEAD", "OPTIONS"}):
            yield method, route.path


@pytest.fixture
async def doors(settings: Settings, jobs: dict[str, str]) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Clients of both applications with the neighbour's keys, `alpha` with the victim's."""
    console = create_console(settings)
    async with AsyncExitStack() as closing:
        ingress = await closing.enter_async_context(started(settings))
        await closing.enter_async_context(console.router.lifespan_context(console))

        async def client(app: Any, key: str) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            headers = {"authorization": f"Bearer {key}"}
            made = httpx.AsyncClient(transport=transport, base_url="http://door", headers=headers, timeout=10)
            return await closing.enter_async_context(made)

        yield {
            "ingress": await client(ingress.app, "sk-beta-chat"),
            "console": await client(console, "sk-beta-admin"),
            "alpha": await client(ingress.app, "sk-alpha-chat"),
            "alpha_console": await client(console, "sk-alpha-admin"),
        }


EVERY_DOOR = [
    *(("ingress", method, path) for method, path in endpoints(INGRESS_ROUTES)),
    *(("console", method, path) for method, path in endpoints(CONSOLE_ROUTES)),
]


@pytest.mark.parametrize(("door", "method", "path"), EVERY_DOOR)
async def test_no_endpoint_crosses(
    doors: dict[str, httpx.AsyncClient],
    all_seeing: asyncpg.Connection,
    jobs: dict[str, str],
    door: str,
    method: str,
    path: str,
) -> None:
    said = await doors["alpha"].post(MESSAGES, json={"message": MARK, "conversation_id": "live"})
    live = said.json()["id"]
    before = await snapshot(all_seeing)
    names = re.findall(r"\{(\w+)", path)
    for job_id in (
        [live, jobs["alpha_done"], jobs["alpha_dead"]] if {"job_id", "conversation_id"} & {*names} else [live]
    ):
        own = {
            "job_id": job_id,
            "tenant_id": VICTIM,
            "key_id": sha256("sk-alpha-chat")[:12],
            "agent_id": "support",
            "model": "support",
            "response_id": f"resp_{job_id}",
            "channel_id": CHANNELS[VICTIM],
            "endpoint_id": jobs["alpha_endpoint"],
            "delivery_id": jobs["alpha_delivery"],
            "name": ALERT,
            "user_id": USER,
            "topic": "topic",
            "conversation_id": "live" if job_id == live else CONVERSATION,
            "erasure_id": jobs["alpha_erasure"],
        }
        url = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: own[found[1]], path)  # noqa: B023 - used at once
        response = await doors[door].request(method, url, json=_body(path))
        assert response.status_code < 500 or path.startswith("/health/"), response.text  # no worker runs here
        assert MARK not in response.text
        of_both = {"agent_id", "model", "user_id", "topic", "conversation_id"}  # the neighbour has such names, too
        if set(names) - of_both:
            # PUT would make an alert of that name of the neighbour's own, if its body were one
            assert response.status_code in ({422} if method == "PUT" else {403, 404}), response.text
        if door == "console" and path.startswith("/v1/"):
            asked = await doors[door].request(method, url, params={"tenant": VICTIM}, json=_body(path))
            assert MARK not in asked.text
            assert asked.status_code < 500, asked.text
    assert await snapshot(all_seeing) == before
    assert (await doors["alpha"].get(f"/v1/jobs/{live}")).json()["state"] == "queued"


def _body(path: str) -> dict[str, Any] | None:
    if path.endswith("/messages"):
        return {"message": "hello", "conversation_id": CONVERSATION}
    if "channel_id" in path and path.endswith("/rotate"):
        return {"credentials": {"verify_token": "mine"}}
    return {"filter": {"tenant": NEIGHBOUR}} if path.endswith("/retry") and "{" not in path else {}


async def test_the_victim_itself_is_let_in(doors: dict[str, httpx.AsyncClient], jobs: dict[str, str]) -> None:
    """Else the test above would prove nothing."""
    assert MARK in (await doors["alpha"].get(f"/v1/jobs/{jobs['alpha_done']}")).text
    console = doors["alpha_console"]
    outbox = (f"/v1/endpoints/{jobs['alpha_endpoint']}", f"/v1/deliveries/{jobs['alpha_delivery']}", "/v1/deliveries")
    alerts = (f"/v1/alerts/{ALERT}", "/v1/alerts", "/v1/alert-events")
    of_tenant = ("/v1/tenants/alpha", "/v1/tenants/alpha/keys", f"/v1/channels/{CHANNELS[VICTIM]}")
    tenant = (f"/v1/dead-jobs/{jobs['alpha_dead']}", *of_tenant)
    of_user = (f"/v1/users/{USER}/profile", f"/v1/users/{USER}/facts")
    erasure = f"/v1/erasures/{jobs['alpha_erasure']}"
    for path in (*tenant, *outbox, *alerts, *of_user, erasure):
        assert MARK in (await console.get(path)).text
    assert jobs["alpha_dead"] in (await console.get("/v1/dead-jobs")).text
