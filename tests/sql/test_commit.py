"""What the end of a turn writes, what its record says, and what the next turn is told."""

import json
from typing import Any

import asyncpg
import msgspec
import pytest

from shared.db import Pool, jsonb
from shared.errors import Conflict
from shared.ids import uuid7
from shared.jobs import JobError, JobRecord, JobState, Usage
from sql import queries
from tests.sql.shapes import CREATED_US, DEAD, a_call, a_failed_call, a_turn

TABLES = ("jobs", "messages", "conversations", "users", "dead_jobs", "llm_calls", "memory_outbox", "deliveries")


async def counts(ops: Pool) -> dict[str, int]:
    """Rows by table, of the tables that have any."""
    found = {table: await ops.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}  # noqa: S608 - a table name of our own
    return {table: count for table, count in found.items() if count}


async def context(app: Pool, turn: dict[str, Any], history: int = 10) -> dict[str, Any]:
    row = await app.fetchrow(
        queries["turn_context"], "alpha", turn["job_id"], turn["run"], turn["conversation_id"], history
    )
    assert row is not None
    return dict(row) | {"history": [(m["role"], m["content"]) for m in json.loads(row["history"])]}


async def test_a_success_writes_everything_once_and_returns_the_whole_record(commit: Any, ops: Pool) -> None:
    calls = [a_call(), a_call(kind="embedding", input_tokens=19, output_tokens=0, cost_nano_usd=380)]
    turn = a_turn(memory=True, callback_url="https://example.org/hook", calls=calls)
    assert await commit("alpha", turn) == (
        True,
        JobRecord(
            id=turn["job_id"],
            tenant="alpha",
            agent="support",
            conversation_id="conversation-1",
            user_id="user-1",
            state=JobState.SUCCEEDED,
            created_us=CREATED_US,
            started_us=CREATED_US + 1,
            finished_us=CREATED_US + 2,
            attempts=1,
            reply="hello!",
            usage=Usage(119, 20, 128, 0, 8),
            cost_nano_usd=123_830,
            metadata={"channel": "web"},
        ),
    )
    once = {"jobs": 1, "messages": 2, "conversations": 1, "users": 1, "llm_calls": 2, "memory_outbox": 1}
    assert await counts(ops) == once | {"deliveries": 1}


async def test_a_job_answered_from_the_cache_says_so_and_its_row_what_that_saved(
    commit: Any, app: Pool, ops: Pool
) -> None:
    kept = a_call(status="cached", cost_nano_usd=0, saved_nano_usd=123, input_tokens=0, output_tokens=0)
    turn = a_turn(cache="exact", calls=[kept])
    _, record = await commit("alpha", turn)
    assert (record.cache, record.cost_nano_usd) == ("exact", 0)
    raw = await app.fetchval(queries["job_record"], "alpha", turn["job_id"])
    assert json.loads(raw)["cache"] == "exact"
    row = await ops.fetchrow("SELECT status, cost_nano_usd, saved_nano_usd FROM llm_calls")
    assert row is not None
    assert tuple(row.values()) == ("cached", 0, 123)


async def test_a_call_of_a_worker_of_the_version_before_saved_nothing(commit: Any, ops: Pool) -> None:
    call = a_call()
    del call["saved_nano_usd"]
    turn = a_turn(calls=[call])
    del turn["cache"]
    _, record = await commit("alpha", turn)
    assert record.cache is None
    assert await ops.fetchval("SELECT saved_nano_usd FROM llm_calls") == 0


async def test_a_repeated_commit_writes_nothing_and_returns_the_same_record(commit: Any, ops: Pool) -> None:
    turn = a_turn(memory=True, callback_url="https://example.org/hook", calls=[a_call()])
    _, first = await commit("alpha", turn)
    before = await counts(ops)
    assert await commit("alpha", turn) == (False, first)
    assert await counts(ops) == before


async def test_the_loser_adds_only_its_calls_and_adopts_the_winners_state(commit: Any, ops: Pool) -> None:
    turn = a_turn(calls=[a_call()])
    await commit("alpha", turn)
    other = turn | DEAD | {"calls": [a_call(attempt=2)]}
    won, record = await commit("alpha", other, query="end_job")
    assert (won, record.state, record.reply, record.cost_nano_usd) == (False, JobState.SUCCEEDED, "hello!", 246_900)
    assert await counts(ops) == {"jobs": 1, "messages": 2, "conversations": 1, "users": 1, "llm_calls": 2}


async def test_the_delivery_carries_the_record_and_its_place_in_the_conversation(commit: Any, ops: Pool) -> None:
    hook = {"callback_url": "https://example.org/hook"}
    records = [(await commit("alpha", a_turn(calls=[a_call()], **hook)))[1] for _ in range(2)]
    records.append((await commit("alpha", a_turn(**(DEAD | hook)), query="end_job"))[1])
    rows = await ops.fetch("SELECT sequence, event_type, url, body, state FROM deliveries ORDER BY sequence")
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    assert [row["event_type"] for row in rows] == ["job.succeeded", "job.succeeded", "job.dead"]
    assert [msgspec.json.decode(row["body"], type=JobRecord) for row in rows] == records
    assert {(row["url"], row["state"]) for row in rows} == {("https://example.org/hook", "pending")}


async def test_a_dead_job_keeps_what_an_operator_needs(commit: Any, ops: Pool) -> None:
    won, record = await commit("alpha", a_turn(**DEAD, attempts=4), query="end_job")
    assert (won, record.state, record.reply, record.attempts) == (True, JobState.DEAD, None, 4)
    assert record.error == JobError("upstream_unavailable", "The provider did not answer.", retryable=True)
    row = await ops.fetchrow("SELECT payload, traceback, attempt_errors, attempts FROM dead_jobs")
    assert row is not None
    assert (json.loads(row["payload"]), row["traceback"], row["attempts"]) == (DEAD["payload"], "Traceback …", 4)
    assert json.loads(row["attempt_errors"]) == DEAD["attempt_errors"]


@pytest.mark.parametrize(
    ("state", "messages", "dead"), [("expired", 1, 1), ("cancelled", 1, 0), ("merged", 1, 0), ("rejected", 0, 1)]
)
async def test_ends_without_a_reply(commit: Any, ops: Pool, state: str, messages: int, dead: int) -> None:
    turn = a_turn(**DEAD | {"state": state, "started_us": None, "attempts": 0})
    if state == "merged":
        turn |= {"merged_into": turn["job_id"]}
    won, record = await commit("alpha", turn, query="end_job")
    assert (won, record.state, record.started_us, record.usage, record.cost_nano_usd) == (True, state, None, None, 0)
    found = await counts(ops)
    assert (found.get("messages", 0), found.get("dead_jobs", 0), found["jobs"]) == (messages, dead, 1)


async def test_a_second_run_keeps_the_identity_and_the_books(commit: Any, app: Pool, ops: Pool) -> None:
    first = a_turn(**DEAD, attempts=4, calls=[a_call(status="error")])
    await commit("alpha", first, query="end_job")
    second = a_turn(job_id=first["job_id"], run=2, calls=[a_call()], reply="at last")
    assert (await context(app, second))["ended"] is None
    won, record = await commit("alpha", second)
    assert (won, record.run, record.attempts, record.cost_nano_usd) == (True, 2, 5, 246_900)
    assert record.usage == Usage(200, 40, 128, 0, 8)
    said = await ops.fetch("SELECT role, body, seq FROM messages ORDER BY seq")
    assert [tuple(row) for row in said] == [("user", "hello?", 1), ("assistant", "at last", 2)]
    text = await app.fetchval(queries["job_record"], "alpha", first["job_id"])
    assert msgspec.json.decode(text, type=JobRecord) == record


async def test_a_job_the_books_do_not_know_has_no_record(app: Pool) -> None:
    assert await app.fetchval(queries["job_record"], "alpha", uuid7()) is None


async def test_another_users_conversation_refuses_a_success_and_keeps_nothing(commit: Any, ops: Pool) -> None:
    await commit("alpha", a_turn(user_id="user-1"))
    before = await counts(ops)
    with pytest.raises(Conflict) as caught:
        await commit("alpha", a_turn(user_id="user-2", calls=[a_call()]))
    assert (caught.value.code, caught.value.status) == ("conversation_owner", 422)
    assert await counts(ops) == before


async def test_a_job_in_another_users_conversation_can_still_end(commit: Any, ops: Pool) -> None:
    await commit("alpha", a_turn(user_id="user-1"))
    turn = a_turn(user_id="user-2", callback_url="https://example.org/hook", calls=[a_call()], **DEAD)
    won, record = await commit("alpha", turn, query="end_job")
    assert (won, record.user_id, record.cost_nano_usd) == (True, "user-2", 123_450)
    assert await counts(ops) == {
        "jobs": 2,
        "messages": 2,
        "conversations": 1,
        "users": 1,
        "llm_calls": 1,
        "dead_jobs": 1,
        "deliveries": 1,
    }


async def test_the_first_named_user_owns_a_conversation_and_nameless_turns_are_welcome(commit: Any, app: Pool) -> None:
    for user, owner in ((None, None), ("user-1", "user-1"), (None, "user-1")):
        await commit("alpha", a_turn(user_id=user))
        assert (await context(app, a_turn()))["conversation_user"] == owner


async def test_a_success_must_go_through_commit_turn(commit: Any) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await commit("alpha", a_turn(), query="end_job")


@pytest.mark.parametrize(
    "wrong",
    [
        {"reply": None},
        {"state": "running"},
        {"state": "dead", "error": None},
        {"error": {"code": "x", "message": "x"}},
        {"run": 0},
        {"attempts": -1},
        {"calls": [a_call(cost_nano_usd=-1)]},
        {"calls": [a_call(call_id="4f6e1f3a-5b0d-4c59-9f2f-0d2ad5b0a6b1")]},
    ],
    ids=" ".join,
)
async def test_impossible_ends_are_refused_whole(commit: Any, ops: Pool, wrong: dict[str, Any]) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await commit("alpha", a_turn(**wrong))
    assert await counts(ops) == {}


@pytest.mark.parametrize(
    "unix_us", [0, 1, 999_999, 1_795_246_200_123_457, 4_102_444_799_999_999, 9_007_199_254_740_991]
)
async def test_microseconds_come_back_exactly(commit: Any, unix_us: int) -> None:
    _, record = await commit("alpha", a_turn(created_us=unix_us, started_us=unix_us, finished_us=unix_us))
    assert (record.created_us, record.started_us, record.finished_us) == (unix_us, unix_us, unix_us)


async def test_whatever_a_model_says_can_be_stored(commit: Any) -> None:
    _, record = await commit("alpha", a_turn(reply="nul \x00, text \\u0000, half \ud83d", metadata={"a": "\\\x00"}))
    assert (record.reply, record.metadata) == ("nul \ufffd, text \\u0000, half ?", {"a": "\\\ufffd"})


async def test_history_is_the_last_messages_and_starts_with_the_user(commit: Any, app: Pool) -> None:
    for number in range(3):
        await commit("alpha", a_turn(message=f"q{number}", reply=f"a{number}"))
    await commit("alpha", a_turn(message="q3", **DEAD), query="end_job")
    whole = [(role, f"{role[0].replace('u', 'q')}{n}") for n in range(3) for role in ("user", "assistant")]
    whole.append(("user", "q3"))
    assert (await context(app, a_turn()))["history"] == whole
    assert (await context(app, a_turn(), history=3))["history"] == whole[-3:]
    assert (await context(app, a_turn(), history=4))["history"] == whole[-3:]
    assert (await context(app, a_turn(), history=0))["history"] == []
    assert (await context(app, a_turn(conversation_id="another")))["history"] == []


async def test_a_second_run_does_not_see_its_own_question_in_the_history(commit: Any, app: Pool) -> None:
    turn = a_turn(**DEAD)
    await commit("alpha", turn, query="end_job")
    assert (await context(app, turn | {"run": 2}))["history"] == []
    assert (await context(app, a_turn()))["history"] == [("user", "hello?")]


async def test_context_says_when_the_run_is_over_and_knows_the_tenants_settings(
    commit: Any, app: Pool, owner: Pool, ops: Pool
) -> None:
    await owner.execute(queries["create_tenant"], "alpha", "Alpha", "{}", "tests")
    await ops.execute("""UPDATE tenants SET settings = '{"max_tokens": 7}'""")
    turn = a_turn(calls=[a_call()])
    _, record = await commit("alpha", turn)
    found = await context(app, turn)
    assert msgspec.json.decode(found["ended"], type=JobRecord) == record
    assert (found["tenant_known"], found["settings"]) == (True, '{"max_tokens": 7}')


async def test_failed_attempts_are_booked_once_and_count_in_the_jobs_cost(commit: Any, app: Pool) -> None:
    turn = a_turn(attempts=2)
    failed = [a_failed_call(turn) for _ in range(2)]
    assert await app.fetchval(queries["end_attempt"], "alpha", jsonb(failed)) == 2
    assert await app.fetchval(queries["end_attempt"], "alpha", jsonb([*failed, a_failed_call(turn)])) == 1
    _, record = await commit("alpha", turn | {"calls": [a_call(attempt=2)]})
    assert record.cost_nano_usd == 4 * 123_450
