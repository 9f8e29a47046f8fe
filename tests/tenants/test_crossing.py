"""Trying to reach another tenant's data: through every query, as the role that serves tenants, and every endpoint.

Nothing is listed here that must be kept complete by hand: queries come from sql/queries, endpoints from the route
tables, tables from the database. Behind a PgBouncer the same runs again (`make test-pgbouncer`).
"""

import asyncio
import json
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
from ops.users.errands import erasing
from ops.users.whom import Whom
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.errors import Forbidden
from shared.redis import Commands, connect
from sql import queries
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, sha256, started
from tests.tenants.crossing import (
    ALERT,
    CHANNELS,
    CONVERSATION,
    DELETING,
    MARK,
    NEIGHBOUR,
    USER,
    VICTIM,
    arguments,
    every_query,
    settle,
)

Snapshot = dict[str, str]


@pytest.fixture
async def all_seeing(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.superuser)
    yield connection
    await connection.close()


@pytest.fixture
async def jobs(all_seeing: asyncpg.Connection) -> dict[str, str]:
    return await settle(all_seeing, all_seeing)


@pytest.fixture
async def app(settings: Settings, jobs: dict[str, str]) -> AsyncIterator[Pool]:
    """The role and the way that the product's processes use."""
    pool = await open_pool(
        settings.database_url, 2, environment="production", prepared_statements=settings.db_prepared_statements
    )
    yield pool
    await pool.close()


async def snapshot(connection: asyncpg.Connection, tenant: str = VICTIM) -> Snapshot:
    """All rows of the tenant, table by table."""
    tables = await connection.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
        "WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition"
    )
    found = {}
    for table in (row["relname"] for row in tables):
        query = f"SELECT coalesce(jsonb_agg(t ORDER BY t::text), '[]')::text FROM {table} t WHERE tenant_id = $1"  # noqa: S608 - a table name of our own
        found[table] = await connection.fetchval(query, tenant)
    return found


async def test_the_victim_has_rows_in_every_table(all_seeing: asyncpg.Connection, jobs: dict[str, str]) -> None:
    assert [table for table, rows in (await snapshot(all_seeing)).items() if rows == "[]"] == []


async def test_every_view_asks_with_its_readers_rights(all_seeing: asyncpg.Connection) -> None:
    rows = await all_seeing.fetch(
        "SELECT relname, coalesce('security_invoker=true' = ANY (reloptions), false) AS safe FROM pg_class "
        "WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace"
    )
    assert [row["relname"] for row in rows if not row["safe"]] == []


async def test_who_serves_tenants_runs_no_function_with_its_owners_rights(all_seeing: asyncpg.Connection) -> None:
    rows = await all_seeing.fetch(
        "SELECT p.proname FROM pg_proc p WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace "
        "AND has_function_privilege('switchboard_app', p.oid, 'EXECUTE')"
    )
    assert {row["proname"] for row in rows} == {"open_money_first", "spent_sums"}, (
        "one tells a bit, the other sums without a word of anybody's; no request leads to either (decisions/0018)"
    )


@pytest.mark.parametrize("name", every_query())
async def test_no_query_crosses(app: Pool, all_seeing: asyncpg.Connection, jobs: dict[str, str], name: str) -> None:
    before = await snapshot(all_seeing)
    prepared = await all_seeing.prepare(queries[name])
    given = arguments(name, [kind.name for kind in prepared.get_parameters()], jobs)
    try:
        rows = await app.fetch(queries[name], *given)
    except asyncpg.InsufficientPrivilegeError:
        rows = []
    said = str([list(row.items()) for row in rows])
    assert MARK not in said
    given_by_himself = name in {"commit_turn", "commit_turns"}
    assert jobs["alpha_done"] not in said or given_by_himself
    assert await snapshot(all_seeing) == before


@pytest.mark.parametrize("name", DELETING)
async def test_what_deletes_keeps_to_the_tenant_it_is_given(
    settings: Settings, all_seeing: asyncpg.Connection, jobs: dict[str, str], name: str
) -> None:
    """In the hands of the role that sees all tenants, for the neighbour."""
    before, neighbours = await snapshot(all_seeing), await snapshot(all_seeing, NEIGHBOUR)
    pool = await open_pool(
        str(settings.ops_database_url), 1, environment="production", prepared_statements=settings.db_prepared_statements
    )
    rows = await pool.fetch(queries[name], *arguments(name, [], jobs))
    await pool.close()
    assert MARK not in str([list(row.items()) for row in rows])
    assert await snapshot(all_seeing) == before
    nothing_of_the_neighbours = name in {"erase_apart", "note_erasure"}  # an address and an erasure of alpha's
    assert (await snapshot(all_seeing, NEIGHBOUR) == neighbours) is nothing_of_the_neighbours


async def test_without_the_role_that_sees_all_nobody_is_erased(
    settings: Settings, app: Pool, all_seeing: asyncpg.Connection
) -> None:
    before = await snapshot(all_seeing)
    commands = Commands(connect(settings.redis_url))
    async with erasing(settings.model_copy(update={"ops_database_url": None}), commands, app) as eraser:
        with pytest.raises(Forbidden, match="SWITCHBOARD_OPS_DATABASE_URL"):
            await eraser.begin(Whom(tenant=VICTIM, user=USER, conversations=[CONVERSATION]), "test")
    await commands.aclose()
    assert await snapshot(all_seeing) == before


OWN = ["job_record", "turn_context", "list_dead_jobs", "list_tenants", "list_api_keys", "recall", "export_user"]


@pytest.mark.parametrize("name", [*OWN, "find_erasure"])
async def test_the_owner_of_the_rows_does_see_them(app: Pool, jobs: dict[str, str], name: str) -> None:
    """Else the test above would prove nothing."""
    mine: dict[str, list[Any]] = {
        "job_record": [VICTIM, jobs["alpha_done"]],
        "turn_context": [VICTIM, jobs["alpha_dead"], 1, CONVERSATION, 10],
        "list_dead_jobs": [json.dumps({"tenant": VICTIM}), None, 10],
        "list_tenants": [VICTIM, None, 10],
        "list_api_keys": [VICTIM],
        "recall": [VICTIM, USER, MARK, int(jobs["alpha_model"]), [1.0, 0.0, 0.0], 1_500, 20, None, None],
        "export_user": [VICTIM, USER, None],
        "find_erasure": [VICTIM, jobs["alpha_erasure"]],
    }
    said = str([list(row.items()) for row in await app.fetch(queries[name], *mine[name])])
    assert (MARK if name != "list_dead_jobs" else jobs["alpha_dead"]) in said


async def test_tenants_that_share_connections_share_nothing_else(settings: Settings, jobs: dict[str, str]) -> None:
    """Behind PgBouncer every transaction may run on the connection that served the other tenant a moment ago."""
    pool = await open_pool(
        settings.database_url, 8, environment="production", prepared_statements=settings.db_prepared_statements
    )

    async def seen(tenant: str) -> None:
        (row,) = await pool.fetch(queries["list_tenants"], tenant, None, 10)
        assert json.loads(row["tenant"])["id"] == tenant
        assert (MARK in row["tenant"]) is (tenant == VICTIM)
        assert await pool.fetchval("SELECT count(*) FROM messages") == 0  # nobody's: no tenant is left behind

    await asyncio.gather(*(seen(tenant) for tenant in (VICTIM, NEIGHBOUR) * 50))
    await pool.close()


# --- endpoints ------------------------------------------------------------------------------------------------------


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
