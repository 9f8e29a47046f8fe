"""Two tenants of whom one may not read the other: rows of both wherever a tenant has some, the victim's marked."""

import json
from base64 import b64encode
from datetime import UTC, datetime

import asyncpg

from shared.db import jsonb
from shared.ids import uuid7
from shared.sealing import Sealer
from shared.tenants import Document
from sql import queries
from tests.ingress.harness import sha256
from tests.sql.shapes import (
    DEAD,
    a_call,
    a_channel,
    a_turn,
    begun_erasure,
    brought,
    memorise,
    remember,
    replying,
)

VICTIM, NEIGHBOUR = "alpha", "beta"
MARK = "only alpha may read this"
KEYS = {f"sk-{tenant}-{scope}": (tenant, [scope]) for tenant in (VICTIM, NEIGHBOUR) for scope in ("chat", "admin")}
SEALING_KEY = b64encode(b"k" * 32).decode()
CHANNELS = {tenant: f"ch-{tenant[0] * 16}" for tenant in (VICTIM, NEIGHBOUR)}
CONVERSATION, USER = "conversation-1", "user-1"
ALERT = "alerts-of-alpha"
FIRST = "00000000-0000-0000-0000-000000000000"
LATER = datetime(2100, 1, 1, tzinfo=UTC)
LATER_US = 4_102_444_800_000_000


async def settle(app: asyncpg.Connection, ops: asyncpg.Connection) -> dict[str, str]:
    """Rows of both tenants wherever a tenant has some, alpha's with the mark in them; alpha's jobs by state."""
    jobs: dict[str, str] = {}
    for tenant in (NEIGHBOUR, VICTIM):
        mark = MARK if tenant == VICTIM else "of the neighbour"
        settings: Document = {"greeting": mark}
        await ops.fetchval(queries["create_tenant"], tenant, mark, json.dumps(settings), mark)
        for key, (owner, scopes) in KEYS.items():
            if owner == tenant:
                await ops.fetchval(queries["create_api_key"], tenant, sha256(key), scopes, mark, None, mark)
        done = a_turn(
            reply=mark,
            message=mark,
            memory=True,
            callback_url=f"https://example.org/{tenant}",
            metadata={"mark": mark},
            domain=mark,
            calls=[a_call(request_id=mark)],
        )
        dead = a_turn(**DEAD) | {"message": mark, "traceback": mark}
        await app.fetchrow(queries["commit_turn"], tenant, json.dumps(done))
        await app.fetchrow(queries["end_job"], tenant, json.dumps(dead))
        await remember(ops, tenant, mark)
        jobs |= {f"{tenant}_{name}": found for name, found in (await memorise(ops, tenant)).items()}
        jobs[f"{tenant}_erasure"] = await begun_erasure(ops, tenant, mark)
        channel = json.dumps(a_channel(name=mark, settings={"phone_number_id": mark}))
        credentials = json.dumps({"app_secrets": [mark], "verify_token": mark}).encode()
        sealed = Sealer(SEALING_KEY).seal(credentials, about=f"{tenant}/{CHANNELS[tenant]}")
        await ops.fetchval(queries["create_channel"], tenant, CHANNELS[tenant], channel, sealed, mark)
        await app.fetchval(queries["note_inbound"], tenant, json.dumps(brought(CHANNELS[tenant], mark)))
        await app.fetchrow(queries["turn_takeover"], tenant, uuid7(), 1, CONVERSATION, 10, 7)
        await app.execute(queries["forget_response"], tenant, dead["job_id"])
        jobs |= {f"{tenant}_done": done["job_id"], f"{tenant}_dead": dead["job_id"]}
        jobs |= {f"{tenant}_{name}": found for name, found in (await _owe_and_alert(ops, tenant, mark)).items()}
    return jobs


async def _owe_and_alert(ops: asyncpg.Connection, tenant: str, mark: str) -> dict[str, str]:
    """An endpoint, a delivery that has failed, a rule and what it told: the ids of the first two."""
    url = f"https://example.org/{tenant}?{mark}"
    endpoint = await ops.fetchval(queries["create_endpoint"], tenant, url, mark, [], mark, 9, "switchboard")
    rule = {"metric": "p50_s", "thresholds": ["5"], "targets": [{"kind": "slack", "to": url}]}
    await ops.fetchrow(queries["put_alert"], tenant, f"alerts-of-{tenant}", jsonb(rule), mark, 9)
    await ops.fetchval(queries["test_alert"], tenant, f"alerts-of-{tenant}", mark)
    failed = {"delivered": False, "blame": True, "gone": False, "code": "timeout", "message": mark}
    rows = await ops.fetch(queries["claim_deliveries"], 50, 50, 60, 5, 50, "{}")
    for one in [json.loads(row["delivery"]) for row in rows]:
        args = (one["tenant"], one["id"], one["attempt"], jsonb(failed), 5, 5, 1_000)
        await ops.fetchval(queries["end_delivery_attempt"], *args)
        await replying(ops, tenant, one["id"], CHANNELS[tenant], mark)
    return {"endpoint": json.loads(endpoint)["id"], "delivery": one["id"]}


Snapshot = dict[str, str]


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
