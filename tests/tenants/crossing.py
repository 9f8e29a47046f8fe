"""What a crossing is tried with: everything of tenant `alpha`, and every query as its neighbour would ask it.

Arguments are made from the types a query takes: the neighbour's name where a tenant is asked for, alpha's ids
everywhere else. `EXACT` has those that need more care; a new query is tried like the others from its first day.
"""

import json
import re
from base64 import b64encode
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg

import sql
from shared.db import jsonb
from shared.ids import uuid7
from shared.sealing import Sealer
from shared.tenants import Document
from sql import queries
from tests.ingress.harness import sha256
from tests.sql.shapes import (
    DEAD,
    MODEL,
    SUBJECT,
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
    rows = await ops.fetch(queries["claim_deliveries"], 50, 50, 60, 5, 50)
    for one in [json.loads(row["delivery"]) for row in rows]:
        args = (one["tenant"], one["id"], one["attempt"], jsonb(failed), 5, 5, 1_000)
        await ops.fetchval(queries["end_delivery_attempt"], *args)
        await replying(ops, tenant, one["id"], CHANNELS[tenant], mark)
    return {"endpoint": json.loads(endpoint)["id"], "delivery": one["id"]}


def arguments(name: str, types: list[str], jobs: dict[str, str]) -> list[Any]:
    if name in EXACT:
        given: list[Any] = EXACT[name](jobs)
        return given
    return [_argument(place, kind, jobs) for place, kind in enumerate(types)]


def _argument(place: int, kind: str, jobs: dict[str, str]) -> Any:
    if kind == "text":
        return NEIGHBOUR if place == 0 else CONVERSATION
    return {
        "uuid": jobs["alpha_dead"],
        "int2": int(jobs["alpha_model"]),
        "int8[]": [int(jobs["alpha_piece"]), int(jobs["alpha_chunk"])],
        "float4": 0.5,
        "timestamptz": LATER,
        "int4": 100,
        "int8": 100,
        "float8": 1.0,
        "bool": True,
        "jsonb": json.dumps({"tenant": NEIGHBOUR}),
        "text[]": ["chat"],
        "numeric[]": [Decimal(1)],
    }[kind]


def _booked(jobs: Any) -> str:
    return json.dumps([a_failed_call(a_turn(job_id=jobs["alpha_done"]), tenant=VICTIM, tenant_id=VICTIM)])


EXACT: dict[str, Any] = {
    "commit_turn": lambda jobs: [
        NEIGHBOUR,
        json.dumps(a_turn(job_id=jobs["alpha_done"]) | {"tenant": VICTIM, "tenant_id": VICTIM}),
    ],
    "commit_turns": lambda jobs: [
        [NEIGHBOUR],
        [json.dumps([a_turn(job_id=jobs["alpha_done"]) | {"tenant": VICTIM, "tenant_id": VICTIM}])],
    ],
    "turn_contexts": lambda jobs: [[NEIGHBOUR], [jobs["alpha_done"]], [1], [CONVERSATION], [10]],
    "end_job": lambda jobs: [NEIGHBOUR, json.dumps(a_turn(**DEAD) | {"job_id": jobs["alpha_dead"]})],
    "end_attempt": lambda jobs: [
        NEIGHBOUR,
        json.dumps([a_failed_call(a_turn(job_id=jobs["alpha_done"]), tenant=VICTIM, tenant_id=VICTIM)]),
    ],
    "book_calls": lambda jobs: [
        NEIGHBOUR,
        json.dumps([a_failed_call(a_turn(job_id=jobs["alpha_done"]), tenant=VICTIM, tenant_id=VICTIM)]),
    ],
    "spent_sums": lambda _jobs: [datetime.now(UTC)],
    "resolve_api_key": lambda _jobs: [sha256("sk-beta-admin")],
    "revoke_api_key": lambda _jobs: [NEIGHBOUR, sha256("sk-alpha-chat")[:12], "beta"],
    "list_dead_jobs": lambda _jobs: [json.dumps({"tenant": NEIGHBOUR}), None, 100],
    "open_dead_jobs": lambda _jobs: [json.dumps({"tenant": NEIGHBOUR}), None, 100],
    "branch_point": lambda jobs: [NEIGHBOUR, jobs["alpha_dead"], True, 100],
    "resolve_channel": lambda _jobs: [CHANNELS[NEIGHBOUR]],
    "list_channels": lambda _jobs: [NEIGHBOUR, None, 100],
    "find_channel": lambda _jobs: [NEIGHBOUR, CHANNELS[VICTIM]],
    "create_channel": lambda _jobs: [NEIGHBOUR, CHANNELS[VICTIM], json.dumps(a_channel()), "x", "beta"],
    "change_channel": lambda _jobs: [NEIGHBOUR, CHANNELS[VICTIM], 1, json.dumps(a_channel()), "x", "beta"],
    "remove_channel": lambda _jobs: [NEIGHBOUR, CHANNELS[VICTIM], "beta"],
    "note_inbound": lambda _jobs: [NEIGHBOUR, json.dumps(brought(CHANNELS[VICTIM]))],
    "list_inbound_kept": lambda _jobs: [NEIGHBOUR, CHANNELS[VICTIM], 100],
    "message_states": lambda _jobs: [NEIGHBOUR, CHANNELS[VICTIM], "wamid.1"],
    "resume_channel": lambda _jobs: [NEIGHBOUR, CHANNELS[VICTIM], "beta"],
    "plan_parts": lambda jobs: [NEIGHBOUR, jobs["alpha_delivery"], 1, 1, "text", ["x"]],
    "begin_part": lambda jobs: [
        *(NEIGHBOUR, jobs["alpha_delivery"], 1, 1, CHANNELS[VICTIM], False, json.dumps([{"peer": "1"}]), 0, 9)
    ],
    "end_part": lambda jobs: [NEIGHBOUR, jobs["alpha_delivery"], 1, 1, "sent", "x"],
    "end_reply_attempt": lambda jobs: [
        *(NEIGHBOUR, jobs["alpha_delivery"], 1, json.dumps({"state": "delivered"}), 1, 1)
    ],
    "list_tenants": lambda _jobs: [NEIGHBOUR, None, 100],
    "list_tenant_changes": lambda _jobs: [NEIGHBOUR, None, 100],
    "mark_dead_job_retried": lambda jobs: [NEIGHBOUR, jobs["alpha_dead"], 1, "beta", 2, "end", None],
    "create_endpoint": lambda _jobs: [NEIGHBOUR, "https://example.org/", "", [], "beta", 0, "switchboard"],
    "change_endpoint": lambda jobs: [NEIGHBOUR, jobs["alpha_endpoint"], json.dumps({"disabled": True})],
    "remove_endpoint": lambda jobs: [NEIGHBOUR, jobs["alpha_endpoint"]],
    "rotate_signing_secret": lambda jobs: [NEIGHBOUR, jobs["alpha_endpoint"], 0],
    "list_endpoints": lambda jobs: [NEIGHBOUR, jobs["alpha_endpoint"]],
    "list_deliveries": lambda _jobs: [json.dumps({"tenant": NEIGHBOUR}), None, 100],
    "delivery_detail": lambda jobs: [NEIGHBOUR, jobs["alpha_delivery"]],
    "replay_delivery": lambda jobs: [NEIGHBOUR, jobs["alpha_delivery"]],
    "end_delivery_attempt": lambda jobs: [
        *(NEIGHBOUR, jobs["alpha_delivery"], 1, json.dumps({"delivered": True, "blame": False, "gone": False}), 1, 1, 1)
    ],
    "list_alerts": lambda _jobs: [NEIGHBOUR, None],
    "put_alert": lambda _jobs: [NEIGHBOUR, ALERT, json.dumps({"metric": "p50_s", "targets": []}), "beta", 9],
    "remove_alert": lambda _jobs: [NEIGHBOUR, ALERT],
    "test_alert": lambda _jobs: [NEIGHBOUR, ALERT, "beta"],
    "list_alert_events": lambda _jobs: [NEIGHBOUR, None, 100],
    "turn_context_memory": lambda jobs: [
        *(NEIGHBOUR, jobs["alpha_dead"], 1, CONVERSATION, 10, USER, MARK, None, None, 1_500, 20)
    ],
    "turn_memory": lambda _jobs: [NEIGHBOUR, CONVERSATION, USER, 10, MARK, None, None, 1_500, 20],
    "commit_summary": lambda jobs: [*(NEIGHBOUR, CONVERSATION, 1, 0, 2, "x", 1, "m", _booked(jobs))],
    "commit_facts": lambda jobs: [
        *(NEIGHBOUR, CONVERSATION, 1, 0, 2, json.dumps({"profile": {}, "facts": []}), _booked(jobs))
    ],
    "put_fact": lambda _jobs: [NEIGHBOUR, USER, "topic", "x", "beta"],
    "erase_facts": lambda _jobs: [NEIGHBOUR, USER, None],
    "recall": lambda jobs: [*(NEIGHBOUR, USER, MARK, int(jobs["alpha_model"]), [1.0, 0.0, 0.0], 1_500, 20, None, None)],
    "write_memory": lambda jobs: [
        *(json.dumps([_piece(jobs)]), json.dumps([_chunk(jobs)]), [int(jobs["alpha_piece"])])
    ],
    "write_memory_embeddings": lambda jobs: [int(jobs["alpha_model"]), [int(jobs["alpha_chunk"])], [1], ["[0,1,0]"]],
    "write_embeddings": lambda jobs: [int(jobs["alpha_model"]), [int(jobs["alpha_chunk"])], [1], ["[0,1,0]"]],
    "activate_embedding_model": lambda _jobs: [MODEL, True],
    "retire_embedding_model": lambda _jobs: [MODEL],
    "forget_embeddings": lambda jobs: [int(jobs["alpha_model"]), "", "", 100],
    "late_embeddings": lambda jobs: [VICTIM, jobs["alpha_done"]],
    "settings_of_tenants": lambda _jobs: [[VICTIM]],
    "begin_erasure": lambda _jobs: [
        *(NEIGHBOUR, SUBJECT, "sealed", "beta", USER, [CONVERSATION], [SUBJECT], LATER_US, 60)
    ],
    "fence_erasure": lambda jobs: [NEIGHBOUR, jobs["alpha_erasure"], "sealed", [SUBJECT], LATER_US],
    "erasure_passed": lambda _jobs: ["1"],
    "erase_again": lambda _jobs: [NEIGHBOUR, USER, [CONVERSATION], LATER_US],
    "erase_calls": lambda _jobs: [NEIGHBOUR, USER, [CONVERSATION], LATER_US, FIRST, 100],
    "erase_jobs": lambda _jobs: [NEIGHBOUR, USER, [CONVERSATION], LATER_US, FIRST, 100, True],
    "erase_apart": lambda _jobs: [NEIGHBOUR, USER, MARK, [CONVERSATION], LATER_US, "beta"],
    "note_erasure": lambda jobs: [NEIGHBOUR, jobs["alpha_erasure"], json.dumps({"messages": 1}), True, 0],
    "find_erasure": lambda jobs: [NEIGHBOUR, jobs["alpha_erasure"]],
    "claim_erasures": lambda _jobs: [100, 60],
    "conversations_of": lambda _jobs: [NEIGHBOUR, USER],
    "list_users": lambda _jobs: [NEIGHBOUR, None, 100],
    "show_user": lambda _jobs: [NEIGHBOUR, USER],
    "export_user": lambda _jobs: [NEIGHBOUR, USER, MARK],
    "spent_by_user": lambda _jobs: [NEIGHBOUR, USER, datetime(2026, 11, 1, tzinfo=UTC)],
    "retire_conversations": lambda _jobs: [NEIGHBOUR, LATER, 0, "", 100, 100],
    "cap_conversations": lambda _jobs: [NEIGHBOUR, 0, 100],
    "retire_jobs": lambda _jobs: [NEIGHBOUR, LATER, 100],
    "retire_rows": lambda _jobs: [NEIGHBOUR, LATER, 100],
    "usage_report": lambda _jobs: [
        json.dumps({"tenant": NEIGHBOUR}),
        ["tenant", "domain"],
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime(2100, 1, 1, tzinfo=UTC),
        None,
    ],
}
DELETING = (
    "begin_erasure",
    "erase_again",
    "erase_calls",
    "erase_jobs",
    "fence_erasure",
    "erase_apart",
    "note_erasure",
    "retire_conversations",
    "cap_conversations",
    "retire_jobs",
    "retire_rows",
)
"""What switchboard_ops asks about one tenant, with alpha's ids."""
_SQL_COMMENT = re.compile(r"-- name: (\w+)")


def _piece(jobs: dict[str, str]) -> dict[str, Any]:
    """Alpha's first message once more, as memory's writer names it."""
    whole = {"char_from": 1, "chars": 200, "role": "user", "speaker": "User", "asks": False}
    return {**_chunk(jobs), **whole, "id": int(jobs["alpha_piece"]), "chunk": int(jobs["alpha_chunk"])}


def _chunk(jobs: dict[str, str]) -> dict[str, Any]:
    where = {"tenant": VICTIM, "user": USER, "conversation": CONVERSATION, "message": jobs["alpha_message"]}
    place = {"seq": 1, "seq_to": 1, "part": 0, "tokens": 4, "said_us": 1, "wait_s": 0}
    return {**where, **place, "id": int(jobs["alpha_chunk"])}


def every_query() -> list[str]:
    """By the files, so that one the loader overlooks is noticed."""
    folder = Path(sql.__file__).parent / "queries"
    names = [name for path in sorted(folder.glob("*.sql")) for name in _SQL_COMMENT.findall(path.read_text("utf-8"))]
    assert set(names) == set(queries)
    return names
