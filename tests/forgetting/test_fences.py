"""What Postgres makes of writes about somebody who was erased: refused, without the user, or as they are."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from ops.users.books import ErasingBooks
from ops.users.whom import Whom
from shared.db import Pool
from shared.ids import uuid7
from sql import queries
from tests.conftest import Database, Eventually
from tests.sql.shapes import CREATED_US, a_call, a_failed_call, a_turn
from tests.turn.deployment import TENANT

GONE, HERE = "a" * 32, "b" * 32
BEFORE, LATER = CREATED_US - 10, CREATED_US + 10
"""Of the moment at which somebody was erased."""


@pytest.fixture
async def app(database: Database, ops_pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    """A worker's connection to books that have a fence."""
    await ops_pool.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, '')", TENANT)
    whom = Whom(tenant=TENANT, user="user-1", conversations=[])
    await ErasingBooks(ops_pool).begin(whom, "sealed", [GONE], CREATED_US, by="tests", lease_s=60)
    connection = await asyncpg.connect(database.app)
    await connection.execute("SELECT set_config('switchboard.tenant', $1, false)", TENANT)
    yield connection
    await connection.close()


async def asked(app: asyncpg.Connection, function: str, given: Any) -> Any:
    query = f"SELECT {function}($1, $2)"
    return json.loads(await app.fetchval(query, TENANT, json.dumps(given)))


async def test_calls_lose_a_user_who_was_erased_since_their_job_was_admitted(app: asyncpg.Connection) -> None:
    call = {"user_id": "user-1", "conversation_id": "c1", "cost_nano_usd": 5}
    gone, here = {"subjects": [HERE, GONE]}, {"subjects": [HERE]}
    kept = [
        call,  # an older worker's
        call | gone | {"admitted_us": LATER},
        call | here | {"admitted_us": BEFORE},
    ]
    assert await asked(app, "scrub_calls", kept) == kept
    [scrubbed] = await asked(app, "scrub_calls", [call | gone | {"admitted_us": CREATED_US}])
    assert (scrubbed["user_id"], scrubbed["conversation_id"], scrubbed["cost_nano_usd"]) == (None, "", 5)
    assert await asked(app, "scrub_calls", []) == []


@pytest.mark.parametrize("query", ["end_attempt", "book_calls"])
async def test_attempts_are_booked_without_whoever_was_erased(
    app: asyncpg.Connection, ops_pool: Pool, query: str
) -> None:
    call = a_failed_call(a_turn()) | {"subjects": [GONE], "admitted_us": BEFORE}
    await app.fetch(queries[query], TENANT, json.dumps([call]))
    [booked] = await ops_pool.fetch("SELECT * FROM llm_calls")
    assert (booked["user_id"], booked["conversation_id"], booked["cost_nano_usd"]) == (None, "", call["cost_nano_usd"])


async def test_ends_of_somebody_else_of_later_or_of_an_older_worker_are_written_as_they_are(
    app: asyncpg.Connection,
) -> None:
    for turn in (
        a_turn(created_us=BEFORE),
        a_turn(created_us=BEFORE) | {"subjects": [HERE]},
        a_turn(created_us=LATER) | {"subjects": [GONE], "taken_in": None},
        a_turn(created_us=LATER) | {"subjects": [GONE], "taken_in": [a_turn(created_us=LATER)]},
    ):
        assert await asked(app, "unless_erased", turn) == turn


async def test_a_later_end_is_written_without_what_it_took_in_of_before(app: asyncpg.Connection) -> None:
    early, late = a_turn(created_us=BEFORE), a_turn(created_us=LATER)
    payload = {"message": "m", "before": ["what it took in"]}
    turn = a_turn(created_us=LATER, payload=payload) | {"subjects": [GONE], "taken_in": [early, late]}
    written = await asked(app, "unless_erased", turn)
    assert written == turn | {"taken_in": [late], "payload": {"message": "m"}}


async def test_an_end_of_before_leaves_the_money_and_nothing_else(app: asyncpg.Connection, ops_pool: Pool) -> None:
    job_id = uuid7()
    await app.execute("INSERT INTO job_claims (tenant_id, job_id, run, claim) VALUES ($1, $2, 1, 5)", TENANT, job_id)
    call = a_call(user_id="user-1", conversation_id="conversation-1")
    turn = a_turn(job_id=job_id, created_us=CREATED_US, calls=[call], memory=True) | {"subjects": [GONE]}
    row = await app.fetchrow("SELECT won, record FROM commit_turn($1, $2)", TENANT, json.dumps(turn))
    assert row is not None
    record = json.loads(row["record"])
    assert (row["won"], record["state"], record["error"]["code"]) == (False, "cancelled", "erased")
    assert (record["user_id"], record["conversation_id"]) == (None, "")
    for table in ("jobs", "messages", "conversations", "users", "memory_outbox", "job_claims"):
        assert await ops_pool.fetchval(f"SELECT count(*) FROM {table}") == 0, table  # noqa: S608
    [booked] = await ops_pool.fetch("SELECT * FROM llm_calls")
    assert (booked["user_id"], booked["conversation_id"], booked["cost_nano_usd"]) == (None, "", call["cost_nano_usd"])


async def test_plain_ends_go_one_by_one_where_one_of_them_is_fenced(app: asyncpg.Connection, ops_pool: Pool) -> None:
    turns = [
        a_turn(conversation_id=f"c-{number}", created_us=BEFORE) | {"subjects": [subject]}
        for number, subject in enumerate((HERE, GONE))
    ]
    query = "SELECT job_id::text, record->>'state' AS state FROM commit_turns($1, $2)"
    rows = await app.fetch(query, [TENANT], [json.dumps(turns)])
    assert {row["job_id"]: row["state"] for row in rows} == {
        turns[0]["job_id"]: "succeeded", turns[1]["job_id"]: "cancelled"
    }  # fmt: skip
    assert await ops_pool.fetchval("SELECT array_agg(conversation_id) FROM conversations") == ["c-0"]


async def test_of_what_channels_brought_the_earlier_goes_and_the_later_says_not_to_whom(
    app: asyncpg.Connection,
) -> None:
    status = {"message_id": "m", "state": "read", "recipient": "r", "details": {"to": "r"}, "error": {"to": "r"}}
    kept = {"digest": "d", "payload": {"from": "r"}}
    for row in (status, kept):
        assert await asked(app, "unless_erased_inbound", [row | {"received_us": BEFORE, "subjects": [GONE]}]) == []
        for other in (row | {"received_us": BEFORE}, row | {"received_us": BEFORE, "subjects": [HERE]}):
            assert await asked(app, "unless_erased_inbound", [other]) == [other]
    later = {"received_us": LATER, "subjects": [GONE]}
    nobody = {"recipient": None, "details": {}, "error": None}
    assert await asked(app, "unless_erased_inbound", [status | later]) == [status | later | nobody]
    assert await asked(app, "unless_erased_inbound", [kept | later]) == [kept | later]


async def test_nobody_is_greeted_who_was_erased_since(app: asyncpg.Connection, ops_pool: Pool) -> None:
    async def greets(subject: str, admitted_us: int) -> bool:
        args = (TENANT, "user-1", uuid7(), json.dumps([HERE, subject]), admitted_us)
        return bool(await app.fetchval(queries["claim_greeting"], *args))

    assert not await greets(GONE, CREATED_US)
    assert await ops_pool.fetchval("SELECT count(*) FROM users") == 0
    assert await greets(GONE, LATER)
    assert await ops_pool.fetchval("SELECT to_unix_us(created_at) FROM users") == LATER


@pytest.mark.parametrize(
    "looks",
    [
        "SELECT fence_of('acme', '[]')",
        "SELECT * FROM commit_turns('{}', '{}')",
    ],
)
async def test_whoever_has_looked_for_a_fence_is_waited_for_though_nothing_is_written_yet(
    app: asyncpg.Connection, ops_pool: Pool, eventually: Eventually, looks: str
) -> None:
    books = ErasingBooks(ops_pool)
    async with app.transaction():
        await app.execute(looks)
        horizon = await books.horizon()
        assert not await books.passed(horizon)
    await eventually(lambda: books.passed(horizon))
