"""Plain turns that are committed together are written as `commit_turn` writes each of them, all of them or none."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
import pytest

from shared.db import Pool, Row, jsonb
from shared.errors import Conflict, Unavailable
from sql import queries
from tests.sql.conftest import Commit
from tests.sql.shapes import CREATED_US, a_call, a_failed_call, a_turn

TENANT, OTHER = "alpha", "beta"
PLAIN: Sequence[dict[str, Any]] = (
    {"conversation_id": "c1", "calls": [a_call()], "memory": True},
    {"conversation_id": "c2", "user_id": None, "metadata": None, "incomplete": "max_output_tokens", "calls": []},
    {"conversation_id": "c3", "user_id": "u3", "calls": [a_call(), a_call(kind="embedding"), a_call(status="error")]},
    {"conversation_id": "c4", "user_id": "u3", "cache": "exact", "calls": [a_call(status="cached", cost_nano_usd=0)]},
    {"conversation_id": "c5", "calls": [a_call(cost_nano_usd=2**60)], "domain": None, "feature": None},
)
WRITTEN = {
    "conversations": "conversation_id, user_id, next_seq, next_delivery, created_at, updated_at",
    "users": "user_id, created_at",
    "messages": "conversation_id, seq, job_id, role, agent, body, created_at, asked",
    "jobs": "job_id, run, state, agent, queue, conversation_id, user_id, domain, feature, metadata, attempts, reply,"
    " incomplete, degraded, cache, context, error, created_at, started_at, finished_at",
    "llm_calls": "job_id, run, attempt, kind, agent, conversation_id, user_id, domain, feature, provider, model,"
    " model_used, status, error_code, estimated, input_tokens, output_tokens, cached_tokens, cost_nano_usd,"
    " saved_nano_usd, unit_prices, price_version, latency_ms, ttft_ms, request_id, raw_usage, started_at",
    "memory_outbox": "user_id, conversation_id, job_id, cardinality(message_ids)",
    "deliveries": "conversation_id, job_id, run, url, event_type, sequence, body - 'tenant'",
}
"""What must be the same, by table; ids that are made on the way are not."""


def plain(**fields: Any) -> dict[str, Any]:
    """A first attempt's turn."""
    turn = a_turn(claim=CREATED_US + 1)
    return turn | {"asked": None, "degraded": None, "context": None} | fields


async def join(pool: Pool, turns: Sequence[dict[str, Any]], tenant: str = TENANT) -> dict[str, str | None]:
    rows = await pool.fetch(queries["commit_turns"], [tenant], [jsonb(list(turns))])
    return {row["job_id"]: row["record"] for row in rows}


async def written(ops: Pool, tenant: str) -> dict[str, list[Row]]:
    return {
        table: [
            tuple(row)
            for row in await ops.fetch(
                f"SELECT {columns} FROM {table} WHERE tenant_id = $1 ORDER BY {columns}",  # noqa: S608 - ours
                tenant,
            )
        ]
        for table, columns in WRITTEN.items()
    }


async def test_they_are_written_as_each_would_be_by_itself(app: Pool, ops: Pool, commit: Commit) -> None:
    """Twice: into new conversations, then into those there are; also what no model said, and what was given along."""
    for round_ in range(2):
        turns = [_with_own_calls(plain(**fields, message=f"{round_}: {fields['conversation_id']}")) for fields in PLAIN]
        turns[1] |= {"degraded": "budget", "context": {"recall": "words_only"}}
        turns[2] |= {"asked": {"given": [{"role": "user", "content": "before"}]}}
        for turn in turns:
            await commit(OTHER, _with_own_calls(turn))
        records = await join(app, turns)
        assert set(records) == {turn["job_id"] for turn in turns}
        for job_id, record in records.items():
            assert record == await app.fetchval(queries["job_record"], TENANT, job_id)
    ours, theirs = await written(ops, TENANT), await written(ops, OTHER)
    assert ours == theirs
    assert len(ours["messages"]) == 2 * (2 * len(PLAIN) - 1)


def _with_own_calls(turn: dict[str, Any]) -> dict[str, Any]:
    return turn | {"calls": [call | {"call_id": a_call()["call_id"]} for call in turn["calls"]]}


async def test_one_that_was_committed_before_gets_its_record_again(app: Pool, ops: Pool, commit: Commit) -> None:
    """The answer to a joined commit was lost, and it is made again with others."""
    old, new = plain(conversation_id="c1", calls=[a_call()]), plain(conversation_id="c2")
    first = await join(app, [old])
    records = await join(app, [new, old | {"reply": "another reply"}])
    assert records[old["job_id"]] == first[old["job_id"]]
    assert len(records) == 2
    assert await ops.fetchval("SELECT count(*) FROM messages WHERE tenant_id = $1", TENANT) == 4
    assert await ops.fetchval("SELECT count(*) FROM llm_calls WHERE tenant_id = $1", TENANT) == 1


async def test_one_that_was_taken_over_is_not_written(app: Pool, ops: Pool) -> None:
    lost, ours = plain(conversation_id="c1", calls=[a_call()]), plain(conversation_id="c2")
    args = (TENANT, lost["job_id"], 1, "c1", 10, CREATED_US + 99)
    await app.fetchrow(queries["turn_takeover"], *args)
    records = await join(app, [lost, ours])
    assert records[lost["job_id"]] is None
    assert records[ours["job_id"]] is not None
    assert await ops.fetchval("SELECT array_agg(DISTINCT conversation_id) FROM messages") == ["c2"]
    assert await ops.fetchval("SELECT count(*) FROM llm_calls") == 1, (
        "the call of the one that lost was made, and costs"
    )


async def test_a_call_that_was_posted_before_is_in_the_record(app: Pool) -> None:
    turn = plain(calls=[])
    posted = a_call(job_id=turn["job_id"], run=1, agent="support", conversation_id="conversation-1")
    await app.fetchval(queries["end_attempt"], TENANT, jsonb([posted]))
    records = await join(app, [turn | {"calls": [posted, a_call()]}])
    assert records[turn["job_id"]] == await app.fetchval(queries["job_record"], TENANT, turn["job_id"])
    assert '"cost_nano_usd": 246900' in str(records[turn["job_id"]])


async def test_another_users_conversation_refuses_all_of_them(app: Pool, ops: Pool) -> None:
    await join(app, [plain(conversation_id="c1", user_id="ada")])
    with pytest.raises(Conflict):
        await join(app, [plain(conversation_id="c2"), plain(conversation_id="c1", user_id="eve")])
    assert await ops.fetchval("SELECT array_agg(conversation_id) FROM jobs") == ["c1"]


async def test_whoever_would_wait_for_a_lock_gives_up_soon(app: Pool, owner: Pool, ops: Pool) -> None:
    await join(app, [plain(conversation_id="c1")])
    async with owner.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('switchboard.tenant', $1, true)", TENANT)
        await connection.fetch("SELECT 1 FROM conversations WHERE conversation_id = 'c1' FOR UPDATE")
        with pytest.raises(Unavailable) as caught:
            await join(app, [plain(conversation_id="c2"), plain(conversation_id="c1")])
    assert isinstance(caught.value.__cause__, asyncpg.LockNotAvailableError)
    assert await ops.fetchval("SELECT count(*) FROM jobs") == 1


async def test_endpoints_are_told_of_each(app: Pool, ops: Pool, commit: Commit) -> None:
    for tenant in (TENANT, OTHER):
        await ops.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, $1) ON CONFLICT DO NOTHING", tenant)
        made = await ops.fetchval("SELECT create_endpoint($1, 'https://example.org/', '', '{}', 'test', 5)", tenant)
        assert made is not None
    turns = [plain(conversation_id=f"c{n}") for n in range(3)]
    for turn in turns:
        await commit(OTHER, turn)
    await join(app, turns)
    ours, theirs = await written(ops, TENANT), await written(ops, OTHER)
    assert len(ours["deliveries"]) == 3
    assert ours == theirs


async def test_turns_of_several_tenants_stay_apart(app: Pool, ops: Pool) -> None:
    mine, yours = plain(user_id="ada"), plain(user_id="eve")  # in conversations of the same name
    rows = await app.fetch(queries["commit_turns"], [TENANT, OTHER], [jsonb([mine]), jsonb([yours])])
    assert {row["job_id"] for row in rows} == {mine["job_id"], yours["job_id"]}
    owners = await ops.fetch("SELECT tenant_id, user_id, job_id::text FROM jobs ORDER BY tenant_id")
    assert [tuple(row) for row in owners] == [(TENANT, "ada", mine["job_id"]), (OTHER, "eve", yours["job_id"])]
    assert await app.fetchval(queries["job_record"], TENANT, yours["job_id"]) is None


async def test_contexts_asked_for_together_are_those_asked_for_one_by_one(app: Pool, commit: Commit) -> None:
    ended, known = plain(conversation_id="c1"), plain(conversation_id="c2", user_id="ada")
    for turn in (ended, known):
        await commit(TENANT, turn)
    asked = [
        (TENANT, ended["job_id"], 1, "c1", 10),
        (TENANT, a_turn()["job_id"], 1, "c2", 10),
        (OTHER, a_turn()["job_id"], 1, "c2", 10),
        (TENANT, a_turn()["job_id"], 1, "c2", 0),
    ]
    together = await contexts(app, *(dict(zip(ASKS, one, strict=True)) for one in asked))
    assert [row[:-1] for row in together] == [
        tuple(await app.fetchrow(queries["turn_context"], *one) or ()) for one in asked
    ]
    assert {row[-1] for row in together} == {None}, "nobody asked what is remembered"
    assert together[0][0] is not None
    assert [row[1] for row in together] == ["user-1", "ada", None, "ada"]


async def test_what_is_remembered_comes_with_contexts_asked_for_together(app: Pool, ops: Pool, commit: Commit) -> None:
    """Of conversations with a summary and without, of nobody's and somebody's, and never of another tenant's."""
    said = "where is my parcel"
    for tenant, conversation, user in ((TENANT, "c1", None), (TENANT, "c2", "ada"), (OTHER, "c1", "eve")):
        await commit(tenant, plain(conversation_id=conversation, user_id=user, message=f"{tenant} {conversation}"))
        await ops.fetch(
            "INSERT INTO conversation_summaries (tenant_id, conversation_id, upto_seq, body, prompt_version, model)"
            " VALUES ($1, $2, 1, $1 || $2, 1, 'm')",
            *(tenant, conversation),
        )
    await ops.fetch('UPDATE users SET profile = \'{"name": {"value": "Ada"}}\' WHERE user_id = \'ada\'')
    places = ((TENANT, "c1"), (TENANT, "c2"), (TENANT, "new"), (OTHER, "c1"), (OTHER, "c2"))
    asked = [(tenant, a_turn()["job_id"], 1, conversation, 10) for tenant, conversation in places]
    together = await contexts(app, *(dict(zip(ASKS, one, strict=True), said=said) for one in asked))
    one_by_one = [
        tuple(await app.fetchrow(queries["turn_context_memory"], *one, None, said, None, None, 1_500, 20) or ())
        for one in asked
    ]
    assert together == one_by_one
    summaries = [msgspec.json.decode(row[-1])["summary"] for row in together]
    assert summaries == ["alphac1", "alphac2", None, "betac1", None]
    assert [msgspec.json.decode(row[-1])["profile"] for row in together].count({}) == len(together) - 1


async def test_what_a_conversation_without_a_row_has_cost_is_known_to_all(app: Pool) -> None:
    """An attempt that failed was paid for before its conversation was begun."""
    turns = [a_turn(conversation_id=f"c{n}") for n in range(3)]
    for turn in turns[:2]:
        await app.fetch(queries["end_attempt"], TENANT, jsonb([a_failed_call(turn) for _ in range(2)]))
    rows = await contexts(
        app, *(dict(zip(ASKS, (TENANT, a_turn()["job_id"], 1, f"c{n}", 10), strict=True)) for n in range(3))
    )
    spent = [(row[5], row[6]) for row in rows]
    sums = [tuple(await app.fetchrow(queries["conversation_spent"], TENANT, f"c{n}") or ()) for n in range(3)]
    assert spent == sums
    assert spent[0] == spent[1] != (0, 0) == spent[2]


ASKS = ("tenant", "job", "run", "conversation", "history")


async def contexts(app: Pool, *asked: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Without their places."""
    rows = await app.fetch(queries["turn_contexts"], jsonb(asked), 1_500, 20)
    return [tuple(row)[1:] for row in sorted(rows, key=lambda row: row["place"])]
