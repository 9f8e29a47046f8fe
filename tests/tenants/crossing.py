"""What a crossing is tried with: everything of tenant `alpha`, and every query as its neighbour would ask it.

Arguments are made from the types a query takes: the neighbour's name where a tenant is asked for, alpha's ids
everywhere else. `EXACT` has those that need more care; a new query is tried like the others from its first day.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

import sql
from shared.ids import uuid7
from shared.tenants import Document
from sql import queries
from tests.ingress.harness import sha256
from tests.sql.shapes import DEAD, a_call, a_failed_call, a_turn

VICTIM, NEIGHBOUR = "alpha", "beta"
MARK = "only alpha may read this"
KEYS = {f"sk-{tenant}-{scope}": (tenant, [scope]) for tenant in (VICTIM, NEIGHBOUR) for scope in ("chat", "admin")}
CONVERSATION, USER = "conversation-1", "user-1"


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
        await app.fetchrow(queries["turn_takeover"], tenant, uuid7(), 1, CONVERSATION, 10, 7)
        jobs |= {f"{tenant}_done": done["job_id"], f"{tenant}_dead": dead["job_id"]}
    return jobs


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
        "int4": 100,
        "int8": 100,
        "bool": True,
        "jsonb": json.dumps({"tenant": NEIGHBOUR}),
        "text[]": ["chat"],
    }[kind]


EXACT: dict[str, Any] = {
    "commit_turn": lambda jobs: [
        NEIGHBOUR,
        json.dumps(a_turn(job_id=jobs["alpha_done"]) | {"tenant": VICTIM, "tenant_id": VICTIM}),
    ],
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
    "list_tenants": lambda _jobs: [NEIGHBOUR, None, 100],
    "list_tenant_changes": lambda _jobs: [NEIGHBOUR, None, 100],
    "mark_dead_job_retried": lambda jobs: [NEIGHBOUR, jobs["alpha_dead"], 1, "beta", 2, "end", None],
    "usage_report": lambda _jobs: [
        json.dumps({"tenant": NEIGHBOUR}),
        ["tenant", "domain"],
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime(2100, 1, 1, tzinfo=UTC),
        None,
    ],
}
_SQL_COMMENT = re.compile(r"-- name: (\w+)")


def every_query() -> list[str]:
    """By the files, so that one the loader overlooks is noticed."""
    folder = Path(sql.__file__).parent / "queries"
    names = [name for path in sorted(folder.glob("*.sql")) for name in _SQL_COMMENT.findall(path.read_text("utf-8"))]
    assert set(names) == set(queries)
    return names
