"""Trying to reach another tenant's data through every query, as the role that serves tenants.

Nothing is listed here that must be kept complete by hand: queries come from sql/queries, tables from the database.
Behind a PgBouncer the same runs again (`make test-pgbouncer`).
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from ops.users.errands import erasing
from ops.users.whom import Whom
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.errors import Forbidden
from shared.redis import Commands, connect
from sql import queries
from tests.tenants.crossing import DELETING, arguments, every_query
from tests.tenants.crossing_rows import CONVERSATION, MARK, NEIGHBOUR, USER, VICTIM, snapshot


@pytest.fixture
async def app(settings: Settings, jobs: dict[str, str]) -> AsyncIterator[Pool]:
    """The role and the way that the product's processes use."""
    pool = await open_pool(
        settings.database_url, 2, environment="production", prepared_statements=settings.db_prepared_statements
    )
    yield pool
    await pool.close()


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
