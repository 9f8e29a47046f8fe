"""What a crossing is tried with: every query as the victim's neighbour would ask it.

Arguments are made from the types a query takes: the neighbour's name where a tenant is asked for, alpha's ids
everywhere else. `EXACT` has those that need more care; a new query is tried like the others from its first day.
"""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sql
from sql import queries
from tests.ingress.harness import sha256
from tests.sql.shapes import (
    DEAD,
    MODEL,
    SUBJECT,
    a_channel,
    a_failed_call,
    a_turn,
    brought,
)
from tests.tenants.crossing_rows import (
    ALERT,
    CHANNELS,
    CONVERSATION,
    FIRST,
    LATER,
    LATER_US,
    MARK,
    NEIGHBOUR,
    USER,
    VICTIM,
)


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


def _asked(jobs: dict[str, str]) -> dict[str, Any]:
    conversation = {"job": jobs["alpha_done"], "run": 1, "conversation": CONVERSATION, "history": 10}
    return {"tenant": NEIGHBOUR, **conversation, "said": MARK}


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
    "turn_contexts": lambda jobs: [json.dumps([_asked(jobs)]), 1_500, 20],
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
    "claim_greeting": lambda jobs: [NEIGHBOUR, USER, jobs["alpha_done"], "[]", 1],
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
