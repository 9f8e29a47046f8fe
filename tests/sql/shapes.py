"""Turns and calls as the workers hand them to the database, with every field; keyword arguments replace some."""

import json
import time
from typing import Any

from shared.ids import uuid7
from sql import queries

CREATED_US = 1_795_246_200_000_001
"""2026-11-21T07:30:00.000001Z"""

DEAD: dict[str, Any] = {
    "state": "dead",
    "reply": None,
    "error": {"code": "upstream_unavailable", "message": "The provider did not answer.", "retryable": True},
    "payload": {"message": "hello?"},
    "traceback": "Traceback …",
    "attempt_errors": [{"attempt": 1, "code": "upstream_unavailable"}],
}


def a_turn(**fields: Any) -> dict[str, Any]:
    turn: dict[str, Any] = {
        "job_id": uuid7(),
        "run": 1,
        "state": "succeeded",
        "agent": "support",
        "queue": "default",
        "conversation_id": "conversation-1",
        "user_id": "user-1",
        "message": "hello?",
        "metadata": {"channel": "web"},
        "domain": "example.org",
        "feature": "faq",
        "callback_url": None,
        "memory": False,
        "attempts": 1,
        "claim": None,
        "attempt_errors": [],
        "created_us": CREATED_US,
        "started_us": CREATED_US + 1,
        "finished_us": CREATED_US + 2,
        "reply": "hello!",
        "incomplete": None,
        "cache": None,
        "error": None,
        "usage": None,
        "cost_nano_usd": 0,
        "payload": None,
        "traceback": None,
        "calls": [],
    }
    assert fields.keys() <= turn.keys()
    return turn | fields


def a_call(**fields: Any) -> dict[str, Any]:
    call: dict[str, Any] = {
        "call_id": uuid7(),
        "attempt": 1,
        "kind": "chat",
        "provider": "openai",
        "model": "gpt-5.4-mini",
        "model_used": "gpt-5.4-mini-2026-03-01",
        "status": "ok",
        "estimated": False,
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_tokens": 64,
        "cache_write_tokens": 0,
        "reasoning_tokens": 4,
        "cost_nano_usd": 123_450,
        "saved_nano_usd": 0,
        "unit_prices": {"input_per_million_usd": "0.25"},
        "price_version": "genai-prices 0.2.3",
        "latency_ms": 812.5,
        "ttft_ms": 211.25,
        "request_id": "req_1",
        "raw_usage": {"prompt_tokens": 100},
        "started_us": CREATED_US + 1,
        "error_code": None,
    }
    return call | fields


def a_failed_call(turn: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A call for `end_attempt`, which has no turn to take these from."""
    head = ("job_id", "run", "agent", "conversation_id", "user_id", "domain", "feature")
    return a_call(status="error", error_code="timeout") | {name: turn[name] for name in head} | fields


def a_channel(**changes: Any) -> dict[str, Any]:
    """What `create_channel` takes."""
    settings, held = {"phone_number_id": "1"}, {"app_secrets": 1}
    return {"kind": "whatsapp", "name": "x", "agent": "support", "settings": settings, "held": held, **changes}


async def replying(connection: Any, tenant: str, delivery: str, channel: str, mark: str) -> None:
    """A part of a reply, and a pace, as whoever sends it leaves them."""
    part = "INSERT INTO delivery_parts (tenant_id, delivery_id, part, form, text) VALUES ($1, $2, 1, 'text', $3)"
    pace = "INSERT INTO channel_paces (tenant_id, channel_id, peer, next_at) VALUES ($1, $2, $3, now())"
    for query, of in ((part, delivery), (pace, channel)):
        await connection.execute(f"{query} ON CONFLICT DO NOTHING", tenant, of, mark)


def brought(channel_id: str, mark: str = "x") -> list[dict[str, Any]]:
    """What `note_inbound` takes: a status and something kept."""
    head = {"channel": channel_id, "received_us": time.time_ns() // 1_000}
    return [
        {**head, "message_id": "wamid.1", "state": "sent", "recipient": mark},
        {**head, "digest": "d", "reason": mark, "payload": {"mark": mark}},
    ]


MODEL = "test:memory"
"""The embedding model of `memorise`."""
SUBJECT = "0" * 32
"""Whom `begun_erasure` erases: nobody."""


async def memorise(ops: Any, tenant: str) -> dict[str, str]:
    """What memory's writer makes of the first message: a piece with its vector, and a chunk that waits for one.

    The turn stays in the outbox. The ids: `model`, `piece`, `chunk`, `message`; `ops` sees all tenants.
    """
    await ops.execute(queries["ensure_embedding_model"], MODEL, 3, 0.2)
    model = await ops.fetchval("SELECT model_id FROM embedding_models WHERE name = $1", MODEL)
    said = await ops.fetchrow(
        "SELECT message_id::text AS message, seq, nextval('memory_blocks') AS id FROM messages "
        "WHERE tenant_id = $1 AND conversation_id = 'conversation-1' ORDER BY seq LIMIT 1",
        tenant,
    )
    piece, chunk = said["id"], said["id"] + 1
    where = {"tenant": tenant, "user": "user-1", "conversation": "conversation-1", "seq": said["seq"], "part": 0}
    common = {**where, "tokens": 4, "said_us": CREATED_US, "wait_s": 0}
    whole = {"char_from": 1, "chars": 200, "role": "user", "speaker": "User", "asks": False}
    pieces = [{**common, **whole, "id": piece, "message": said["message"], "chunk": chunk}]
    chunks = [{**common, "id": chunk, "seq_to": said["seq"]}]
    await ops.execute(queries["write_memory"], json.dumps(pieces), json.dumps(chunks), [])
    assert await ops.fetchval(queries["write_embeddings"], model, [piece], [1], ["[1,0,0]"]) == 1
    return {"model": str(model), "piece": str(piece), "chunk": str(chunk), "message": said["message"]}


async def begun_erasure(owner: Any, tenant: str, mark: str = "x") -> str:
    """One that nobody else takes over within the hour; its id."""
    args = (SUBJECT, mark, mark, None, [], [SUBJECT], 1, 3_600)
    return str((await owner.fetchrow(queries["begin_erasure"], tenant, *args))["request"])


async def remember(ops: Any, tenant: str, mark: str = "x") -> None:
    """A task, a summary and a fact of a conversation and a user there are; `ops` sees all tenants."""
    await ops.execute(
        "INSERT INTO memory_tasks (tenant_id, conversation_id, kind, error) VALUES ($1, 'conversation-1', 'facts', $2)",
        tenant,
        json.dumps({"message": mark}),
    )
    await ops.execute(
        "INSERT INTO conversation_summaries (tenant_id, conversation_id, upto_seq, body, prompt_version, model) "
        "VALUES ($1, 'conversation-1', 1, $2, 1, 'm')",
        tenant,
        mark,
    )
    await ops.execute(queries["put_fact"], tenant, "user-1", "topic", mark, mark)
    entries = json.dumps({"name": {"value": mark, "sources": []}})
    await ops.execute(queries["change_profile"], tenant, "user-1", entries, [], mark)
