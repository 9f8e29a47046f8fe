"""Trying to cross from one tenant to another, through every table and function."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from shared.db import Pool, jsonb
from shared.ids import uuid7
from sql import queries
from tests.ingress.harness import sha256
from tests.keys import give_key
from tests.sql.shapes import (
    DEAD,
    a_call,
    a_channel,
    a_failed_call,
    a_turn,
    begun_erasure,
    brought,
    memorise,
    remember,
    replying,
)

TENANTS = ("alpha", "beta")
KEYS = {tenant: f"sk-of-{tenant}" for tenant in TENANTS}
CHANNELS = {tenant: f"ch-{tenant[0] * 16}" for tenant in TENANTS}


@pytest.fixture
async def jobs(owner: Pool, ops: Pool, commit: Any) -> dict[str, str]:
    """One row or more in every table for each tenant; the job id of a success by tenant."""
    done = {}
    for tenant in TENANTS:
        await give_key(owner, tenant, KEYS[tenant], ["chat"])
        turn = a_turn(memory=True, callback_url="https://example.org/hook", calls=[a_call()])
        await commit(tenant, turn)
        await commit(tenant, a_turn(**DEAD), query="end_job")
        await owner.fetchrow(queries["turn_takeover"], tenant, uuid7(), 1, "conversation-1", 10, 7)
        await owner.execute(queries["forget_response"], tenant, uuid7())
        await owe_and_alert(owner, ops, tenant)
        await remember(ops, tenant)
        await memorise(ops, tenant)
        await owner.execute(queries["switch_tenant"], tenant, True, "test")
        await owner.execute(queries["switch_tenant"], tenant, False, "test")
        await owner.fetchval(queries["create_channel"], tenant, CHANNELS[tenant], jsonb(a_channel()), "sealed", "test")
        await owner.fetchval(queries["note_inbound"], tenant, jsonb(brought(CHANNELS[tenant])))
        await begun_erasure(ops, tenant)
        done[tenant] = turn["job_id"]
    return done


async def owe_and_alert(owner: Pool, ops: Pool, tenant: str) -> None:
    """An endpoint with its secret, a delivery that has failed once, a rule, and what it has told."""
    await owner.execute(queries["create_endpoint"], tenant, "https://example.org/e", "", [], "test", 9, "switchboard")
    rule = {"metric": "p50_s", "thresholds": ["5"], "targets": [{"kind": "email", "to": "ada@example.org"}]}
    await owner.execute(queries["put_alert"], tenant, "slow", jsonb(rule), "test", 9)
    await owner.execute(queries["test_alert"], tenant, "slow", "test")
    rows = await ops.fetch(queries["claim_deliveries"], 50, 50, 60, 5, 50, "{}")
    claimed = [json.loads(row["delivery"]) for row in rows]
    failed = {"delivered": False, "blame": True, "gone": False, "code": "timeout", "message": "no answer"}
    for one in claimed:
        args = (one["tenant"], one["id"], one["attempt"], jsonb(failed), 5, 5, 1_000)
        assert await ops.fetchval(queries["end_delivery_attempt"], *args)
        await replying(ops, one["tenant"], one["id"], CHANNELS[tenant], "x")


@pytest.fixture
async def app_connection(database: Any, jobs: dict[str, str]) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.app)
    yield connection
    await connection.close()


async def tenant_tables(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
        "WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition"
    )
    return [row["relname"] for row in rows]


async def test_every_table_of_tenants_forces_row_level_security(app_connection: asyncpg.Connection) -> None:
    tables = await tenant_tables(app_connection)
    assert {"tenants", "jobs", "messages", "llm_calls", "deliveries", "memory_outbox"} <= set(tables)
    rows = await app_connection.fetch(
        "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced, "
        "  EXISTS (SELECT FROM pg_policies WHERE tablename = relname AND policyname = 'tenant') AS has_policy "
        "FROM pg_class WHERE relname = ANY($1)",
        tables,
    )
    assert [row["relname"] for row in rows if not (row["forced"] and row["has_policy"])] == []


async def test_partitions_are_closed_to_those_who_name_them(app_connection: asyncpg.Connection) -> None:
    rows = await app_connection.fetch(
        "SELECT oid::regclass::text AS name, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class "
        "WHERE relispartition AND relkind = 'r'"
    )
    assert len(rows) >= 5
    for row in rows:
        assert row["forced"], row["name"]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app_connection.fetch(f"SELECT * FROM {row['name']}")  # noqa: S608 - a table name of our own


async def test_a_tenant_sees_its_own_rows_in_every_table_and_nobody_elses(app_connection: asyncpg.Connection) -> None:
    for tenant in TENANTS:
        async with app_connection.transaction():
            await app_connection.execute("SELECT set_config('switchboard.tenant', $1, true)", tenant)
            for table in await tenant_tables(app_connection):
                seen = await app_connection.fetch(f"SELECT DISTINCT tenant_id FROM {table}")  # noqa: S608 - a table name of our own
                assert [row["tenant_id"] for row in seen] == [tenant], table


async def test_without_a_tenant_nothing_is_seen_not_even_after_a_call_that_set_one(
    app_connection: asyncpg.Connection, jobs: dict[str, str]
) -> None:
    for _ in range(2):
        for table in await tenant_tables(app_connection):
            assert await app_connection.fetch(f"SELECT * FROM {table}") == [], table  # noqa: S608 - a table name of our own
        assert await app_connection.fetchval(queries["job_record"], "alpha", jobs["alpha"]) is not None
        await app_connection.fetchrow(queries["resolve_api_key"], sha256(KEYS["alpha"]))


async def test_a_row_of_another_tenant_cannot_be_written(app_connection: asyncpg.Connection) -> None:
    async with app_connection.transaction():
        await app_connection.execute("SELECT set_config('switchboard.tenant', 'alpha', true)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await app_connection.execute("INSERT INTO users (tenant_id, user_id) VALUES ('beta', 'intruder')")


async def test_functions_do_not_reach_into_another_tenant(app: Pool, jobs: dict[str, str]) -> None:
    assert await app.fetchval(queries["job_record"], "beta", jobs["alpha"]) is None
    row = await app.fetchrow(queries["turn_context"], "gamma", jobs["alpha"], 1, "conversation-1", 10)
    assert dict(row or {}) == {
        "ended": None,
        "conversation_user": None,
        "history": "[]",
        "settings": "{}",
        "tenant_known": False,
        "spent_nano_usd": 0,
        "spent_tokens": 0,
    }
    assert dict(await app.fetchrow(queries["conversation_spent"], "gamma", "conversation-1") or {}) == {
        "cost_nano_usd": 0,
        "tokens": 0,
    }


async def test_the_same_job_id_in_another_tenant_is_another_job(commit: Any, jobs: dict[str, str], app: Pool) -> None:
    won, record = await commit("beta", a_turn(job_id=jobs["alpha"], reply="mine", conversation_id="other"))
    assert (won, record.tenant, record.reply, record.cost_nano_usd) == (True, "beta", "mine", 0)
    assert '"reply": "hello!"' in await app.fetchval(queries["job_record"], "alpha", jobs["alpha"])


async def test_a_calls_own_tenant_field_is_not_believed(app: Pool, ops: Pool, jobs: dict[str, str]) -> None:
    call = a_failed_call(a_turn(), tenant_id="alpha", tenant="alpha")
    assert await app.fetchval(queries["end_attempt"], "beta", jsonb([call])) == 1
    assert await ops.fetchval("SELECT tenant_id FROM llm_calls WHERE call_id = $1", call["call_id"]) == "beta"


@pytest.mark.parametrize(
    "statement",
    [
        "SET ROLE switchboard_owner",
        "SET ROLE switchboard_ops",
        "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON jobs USING (true)",
        "UPDATE llm_calls SET cost_nano_usd = 0",
        "DELETE FROM llm_calls",
        "TRUNCATE llm_calls",
        "UPDATE jobs SET reply = ''",
        "DELETE FROM messages",
        "INSERT INTO tenants (tenant_id, name) VALUES ('alpha2', '')",
        "UPDATE api_keys SET revoked_at = NULL",
        "INSERT INTO schema_migrations (name, sha256) VALUES ('x', 'x')",
        "SELECT make_llm_calls_partitions()",
        "SELECT upsert_tenant_key('alpha', '', repeat('c', 64), '{chat}', '')",
        "SET row_security = off; SELECT * FROM jobs",
        "SELECT create_tenant('alpha2', '', '{}', 'me')",
        "SELECT change_tenant('alpha', 1, 'mine', '{}', 'me')",
        "SELECT switch_tenant('alpha', true, 'me')",
        "SELECT create_api_key('alpha', repeat('c', 64), '{operator}', '', NULL, 'me')",
        "SELECT revoke_api_key('alpha', repeat('a', 12), 'me')",
        "DELETE FROM tenant_changes",
        "UPDATE channels SET sealed = ''",
        "DELETE FROM channels",
        'SELECT create_channel(\'alpha\', \'ch-0000000000000000\', \'{"kind": "x", "name": "", "agent": "", '
        "\"settings\": {}, \"held\": {}}', '', 'me')",
        "SELECT remove_channel('alpha', 'ch-aaaaaaaaaaaaaaaa', 'me')",
        "SELECT begin_erasure('alpha', repeat('0', 32), 'x', 'me', 'user-1', '{}', '{}', 1, 60)",
        "SELECT fence_erasure('alpha', uuid7(), 'x', '{}', 1)",
        "SELECT erase_again('alpha', 'user-1', '{}', 1)",
        "SELECT erase_calls('alpha', 'user-1', '{}', 1, uuid7(), 1)",
        "SELECT erase_jobs('alpha', 'user-1', '{}', 1, uuid7(), 1, true)",
        "SELECT erase_apart('alpha', 'user-1', NULL, '{}', 1, 'me')",
        "SELECT note_erasure('alpha', uuid7(), '{}', true, 0)",
        "DELETE FROM erasure_fences",
        "UPDATE erasures SET sealed = ''",
        "DELETE FROM memory_items",
        "INSERT INTO memory_pending (model_id, item_id, tenant_id, user_id) VALUES (1, 1, 'alpha', 'user-1')",
        "UPDATE embedding_models SET state = 'retired'",
    ],
)
async def test_the_app_role_may_not(app_connection: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_connection.execute(statement)


async def test_the_owner_is_bound_and_ops_sees_all(owner: Pool, ops: Pool, jobs: dict[str, str]) -> None:
    assert await owner.fetch("SELECT * FROM jobs") == []
    assert {row["tenant_id"] for row in await ops.fetch("SELECT tenant_id FROM jobs")} == set(TENANTS)


async def test_a_key_resolves_to_its_tenant_until_it_is_revoked(app: Pool, ops: Pool, jobs: dict[str, str]) -> None:
    row = await app.fetchrow(queries["resolve_api_key"], sha256(KEYS["alpha"]))
    expected = {"tenant_id": "alpha", "scopes": ["chat"], "settings": "{}", "settings_version": 1}
    assert dict(row or {}) == expected
    assert await app.fetchrow(queries["resolve_api_key"], "c" * 64) is None
    await ops.execute("UPDATE api_keys SET revoked_at = now() WHERE tenant_id = 'alpha'")
    assert await app.fetchrow(queries["resolve_api_key"], sha256(KEYS["alpha"])) is None
    assert await app.fetchrow(queries["resolve_api_key"], sha256(KEYS["beta"])) is not None


async def test_a_disabled_tenant_has_no_keys_and_is_not_known(app: Pool, ops: Pool, jobs: dict[str, str]) -> None:
    await ops.execute("UPDATE tenants SET disabled_at = now() WHERE tenant_id = 'alpha'")
    assert await app.fetchrow(queries["resolve_api_key"], sha256(KEYS["alpha"])) is None
    row = await app.fetchrow(queries["turn_context"], "alpha", a_turn()["job_id"], 1, "conversation-1", 10)
    assert row is not None
    assert row["tenant_known"] is False


async def test_a_key_is_never_moved_to_another_tenant(owner: Pool, app: Pool, jobs: dict[str, str]) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute(queries["upsert_development_key"], sha256(KEYS["alpha"]))
    row = await app.fetchrow(queries["resolve_api_key"], sha256(KEYS["alpha"]))
    assert row is not None
    assert row["tenant_id"] == "alpha"


async def test_the_development_key_can_be_given_again_and_again(owner: Pool, app: Pool) -> None:
    for _ in range(2):
        await owner.execute(queries["upsert_development_key"], "d" * 64)
    row = await app.fetchrow(queries["resolve_api_key"], "d" * 64)
    assert row is not None
    assert (row["tenant_id"], row["scopes"]) == ("dev", ["chat", "admin", "operator"])
    assert json.loads(row["settings"])["unlimited"] is True
