"""The steps of an erasure in Postgres, each by itself: what it takes, and what came later."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from ops.users import books as in_postgres
from ops.users.books import ErasingBooks
from ops.users.whom import Whom
from shared.db import Pool
from tests.conftest import Eventually
from tests.turn.deployment import TENANT, Deployment

USER = "whatsapp:16505559917734"
SUBJECTS = ["a" * 32]
HOUR = timedelta(hours=1)


@pytest.fixture
def books(ops_pool: Pool) -> ErasingBooks:
    return ErasingBooks(ops_pool)


def a_user(*conversations: str) -> Whom:
    return Whom(tenant=TENANT, user=USER, conversations=list(conversations))


async def begin(books: ErasingBooks, before_us: int, *, sealed: str = "s", lease_s: int = 60) -> str:
    return await books.begin(a_user(), sealed, SUBJECTS, before_us, by="tests", lease_s=lease_s)


async def erasure(deployment: Deployment) -> dict[str, Any]:
    [row] = await deployment.books.fetch(
        "SELECT *, to_unix_us(erased_before) AS before_us, lease_until > now() + interval '90 s' AS long FROM erasures"
    )
    return dict(row)


async def test_an_erasure_that_is_asked_for_again_begins_again(deployment: Deployment, books: ErasingBooks) -> None:
    request = await begin(books, 100)
    await books.fence(a_user(), request, "fenced", SUBJECTS, 150)
    await books.note(TENANT, request, {"messages": 2}, done=False, lease_s=1)
    row = await erasure(deployment)
    assert (row["state"], row["sealed"], row["before_us"], row["long"]) == ("fenced", "fenced", 150, False)
    await deployment.books.execute("INSERT INTO users (tenant_id, user_id) VALUES ($1, $2)", TENANT, USER)
    assert await begin(books, 200, sealed="new", lease_s=100) == request
    row = await erasure(deployment)
    assert (row["state"], row["sealed"], row["before_us"], row["long"]) == ("begun", "new", 200, True)
    assert json.loads(row["counts"]) == {"messages": 2, "users": 1}
    await begin(books, 50)
    assert (await erasure(deployment))["before_us"] == 200, "never back"


async def test_a_fence_moves_forward_only_and_stays_for_a_year_from_then(
    deployment: Deployment, books: ErasingBooks, ops_pool: Pool
) -> None:
    async def fences() -> list[tuple[int, bool]]:
        query = "SELECT to_unix_us(erased_before) AS us, made_at > now() - interval '1 hour' AS new FROM erasure_fences"
        return [(row["us"], row["new"]) for row in await deployment.books.fetch(query)]

    async def age(by: str) -> None:
        await deployment.books.execute("UPDATE erasure_fences SET made_at = made_at - $1::text::interval", by)
        await ops_pool.fetchval("SELECT drop_old_fences()")

    request = await begin(books, 100)
    await age("364 days")
    assert await fences() == [(100, False)]
    await books.fence(a_user(), request, "s", SUBJECTS, 200)
    assert await fences() == [(200, True)]
    await begin(books, 150)
    assert await fences() == [(200, True)]
    await age("366 days")
    assert await fences() == []


async def test_what_was_written_of_before_the_fence_goes_and_what_came_later_stays(
    deployment: Deployment, books: ErasingBooks
) -> None:
    """A message is of before when its job is, or when nobody knows the job any more and it is itself."""
    run = deployment.books.execute
    async with deployment.worker():
        for text in ("admitted before", "retired", "later"):
            await deployment.ended(await deployment.say(text, user=USER))
        await deployment.ended(await deployment.say("later too", user=USER, conversation="c2"))
    before: datetime = await deployment.books.fetchval("SELECT now()")
    later = "UPDATE {} SET created_at = $1 WHERE job_id IN (SELECT job_id FROM messages WHERE body = ANY ($2))"
    for table in ("messages", "jobs"):
        await run(later.format(table), before + HOUR, ["later", "later too"])
    await run(later.format("messages"), before + HOUR, ["admitted before"])
    await run("DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM messages WHERE body = 'retired')")
    await run("UPDATE users SET created_at = $1", before + HOUR)
    await run("UPDATE conversations SET created_at = $1 WHERE conversation_id = 'c2'", before + HOUR)
    await run("DELETE FROM messages WHERE conversation_id = 'c2'")
    for topic, at in (("old", before), ("new", before + HOUR)):
        fact = "INSERT INTO user_facts (tenant_id, user_id, topic, body, told_by, valid_from, made_at) "
        await run(f"{fact} VALUES ($1, $2, $3, 'b', 'user', now(), $4)", TENANT, USER, topic, at)

    counts = await books.again(a_user(), int(before.timestamp() * 1e6) + 1)
    assert counts == {"messages": 4, "user_facts": 1}
    said = await deployment.books.fetch("SELECT body FROM messages WHERE role = 'user'")
    assert [row["body"] for row in said] == ["later"]
    assert await deployment.books.fetchval("SELECT array_agg(topic) FROM user_facts") == ["new"]
    conversations = await deployment.books.fetchval(
        "SELECT array_agg(conversation_id ORDER BY conversation_id) FROM conversations"
    )
    assert conversations == ["c1", "c2"], "one goes on, one began later"


async def test_the_ledger_loses_whom_the_jobs_of_before_name(deployment: Deployment, books: ErasingBooks) -> None:
    """A row is of before when its job is; when nobody knows the job, its id says when it was made."""
    run, rows = deployment.books.execute, deployment.books.fetch
    async with deployment.worker():
        said = {
            text: await deployment.say(text, user=user, conversation=conversation)
            for text, user, conversation in (
                ("theirs", USER, "c1"),
                ("theirs elsewhere", USER, "c2"),
                ("nobody's there", None, "c1-of-nobody"),
                ("later", USER, "c3"),
                ("somebody's", "u2", "c4"),
            )
        }
        for job_id in said.values():
            await deployment.ended(job_id)
    before: datetime = await deployment.books.fetchval("SELECT now()")
    await run("UPDATE jobs SET created_at = $1 WHERE job_id = $2", before + HOUR, said["later"])
    future = "overlay(job_id::text PLACING substr(uuid7_floor($1)::text, 1, 13) FROM 1 FOR 13)::uuid"
    for table in ("llm_calls", "jobs"):  # its row says that it was admitted before, its id that it was made later
        await run(f"UPDATE {table} SET job_id = {future} WHERE job_id = $2", before + HOUR, said["theirs elsewhere"])  # noqa: S608
    await run("DELETE FROM jobs WHERE job_id = $1", said["theirs"])
    assert await books.calls(a_user("c1-of-nobody"), int(before.timestamp() * 1e6) + 1) == {"llm_calls": 3}
    left = {(row["user_id"], row["conversation_id"]) for row in await rows("SELECT * FROM llm_calls")}
    assert left == {(None, ""), (USER, "c3"), ("u2", "c4")}
    one = Whom(tenant=TENANT, user=None, conversations=["c4"])
    assert await books.calls(one, int(before.timestamp() * 1e6) + 1) == {"llm_calls": 1}
    assert ("u2", "") in {(row["user_id"], row["conversation_id"]) for row in await rows("SELECT * FROM llm_calls")}


async def test_jobs_of_before_go_with_all_that_hangs_on_them(deployment: Deployment, books: ErasingBooks) -> None:
    run = deployment.books.execute
    named = (("theirs", USER, "c1"), ("later", USER, "c2"), ("nobody's", None, "c3"), ("somebody's", "u2", "c4"))
    async with deployment.worker():
        jobs = {
            text: await deployment.say(text, user=user, conversation=conversation, callback_url="https://example.org/")
            for text, user, conversation in named
        }
        for job_id in jobs.values():
            await deployment.ended(job_id)
    before: datetime = await deployment.books.fetchval("SELECT now()")
    await run("UPDATE jobs SET created_at = $1 WHERE job_id = $2", before + HOUR, jobs["later"])
    told: list[str] = []

    async def tell(ids: list[str]) -> None:
        assert await deployment.books.fetchval("SELECT count(*) FROM jobs") == 4, "nothing is gone yet"
        told.extend(ids)

    counts = await books.jobs(a_user("c3"), int(before.timestamp() * 1e6) + 1, tell)
    assert counts == {"jobs": 2, "deliveries": 2}
    assert set(told) == {jobs["theirs"], jobs["nobody's"]}
    for table in ("jobs", "deliveries", "messages"):
        left = await deployment.books.fetch(f"SELECT DISTINCT job_id::text AS id FROM {table}")  # noqa: S608
        assert {row["id"] for row in left} == {jobs["later"], jobs["somebody's"]}, table


async def test_however_many_there_are_all_go_some_at_a_time(
    deployment: Deployment, books: ErasingBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_postgres, "ROWS", 2)
    async with deployment.worker():
        said = [await deployment.say("hello", user=USER, conversation=f"c{number}") for number in range(5)]
        for job_id in said:
            await deployment.ended(job_id)
    before: datetime = await deployment.books.fetchval("SELECT now()")
    told: list[str] = []

    async def tell(ids: list[str]) -> None:
        assert len(ids) <= 2
        told.extend(ids)

    before_us = int(before.timestamp() * 1e6) + 1
    assert await books.calls(a_user(), before_us) == {"llm_calls": 5}
    assert (await books.jobs(a_user(), before_us, tell))["jobs"] == 5
    assert sorted(told) == sorted(said)


async def test_what_stands_apart_goes_by_its_moment_and_by_every_name(
    deployment: Deployment, books: ErasingBooks
) -> None:
    run, address = deployment.books.execute, USER.partition(":")[2]
    await run("SELECT set_config('switchboard.tenant', $1, false)", TENANT)
    before: datetime = await deployment.books.fetchval("SELECT now()")
    scopes = ["conversation:c9", f"user:{USER}", f"user-month:{USER}", "user:u2"]
    for at, period in ((before, "old"), (before + HOUR, "new")):
        alert = (
            "INSERT INTO alert_events (tenant_id, name, metric, scope, period, threshold, threshold_limit, value, "
            "crossed_at) SELECT $1, 'budgets', 'budget', scope, $3, 1, 1, 1, $4 FROM unnest($2::text[]) AS s(scope)"
        )
        await run(alert, TENANT, scopes, period, at)
    await run(
        """SELECT tell_alert(e, $1, '[{"kind": "email", "to": "o@example.org"}]') FROM alert_events AS e""", TENANT
    )
    for by, period in ((-HOUR, "old"), (HOUR, "new")):
        await run("UPDATE deliveries SET created_at = created_at + $1 WHERE body->>'period' = $2", by, period)
    paces = [address, "777", "888", "", "+15"]
    pace = "INSERT INTO channel_paces (tenant_id, channel_id, peer, next_at) SELECT $1, 'ch', p, now() "
    await run(f"{pace} FROM unnest($2::text[]) AS given(p)", TENANT, paces)
    for at, message in ((before, "old"), (before + HOUR, "new")):
        status = (
            "INSERT INTO channel_statuses (tenant_id, channel_id, message_id, state, at, recipient, received_at) "
            "VALUES ($1, 'ch', $2, 'read', now(), $3, $4)"
        )
        await run(status, TENANT, message, address, at)
        payloads = ({"from": [address]}, {"start": f'{{"from": "{address}", "cut'}, {"from": "u2"})
        for number, payload in enumerate(payloads):
            kept = "INSERT INTO inbound_kept (tenant_id, channel_id, digest, reason, payload, received_at) "
            digest = f"{message}{number}"
            await run(f"{kept} VALUES ($1, 'ch', $2, 'odd', $3, $4)", TENANT, digest, json.dumps(payload), at)

    whom = a_user("c9", "ch-0011:777", "lounge:888")
    counts = await books.apart(whom, int(before.timestamp() * 1e6) + 1, "tests")
    assert counts == {
        "alert_events": 3, "deliveries": 3, "channel_paces": 2, "channel_statuses": 1, "inbound_kept": 2
    }  # fmt: skip
    left = await deployment.books.fetch("SELECT scope, period FROM alert_events WHERE period = 'old'")
    assert [row["scope"] for row in left] == ["user:u2"]
    assert await deployment.books.fetchval("SELECT array_agg(peer ORDER BY peer) FROM channel_paces") == [
        "",
        "+15",
        "888",
    ]
    assert await deployment.books.fetchval("SELECT array_agg(digest ORDER BY digest) FROM inbound_kept") == [
        "new0", "new1", "new2", "old2"
    ]  # fmt: skip


async def test_settings_and_their_history_name_the_user_no_more_and_say_that_somebody_was(
    deployment: Deployment, books: ErasingBooks
) -> None:
    tiers = {"settings": {"user_tiers": {USER: "pro", "u2": "free"}}}
    run, fetchval = deployment.books.execute, deployment.books.fetchval
    await run("UPDATE tenants SET settings = $2 WHERE tenant_id = $1", TENANT, json.dumps(tiers["settings"]))
    for before, after in ((None, tiers), (tiers, {"settings": {}})):
        change = "INSERT INTO tenant_changes (tenant_id, changed_by, action, before, after) "
        await run(
            f"{change} VALUES ($1, 'a', 'changed', $2, $3)", TENANT, before and json.dumps(before), json.dumps(after)
        )
    version = await fetchval("SELECT settings_version FROM tenants")
    counts = await books.apart(a_user(), 1, "tests")
    assert counts == {"tenants": 1, "tenant_changes": 2}
    assert json.loads(await fetchval("SELECT settings FROM tenants")) == {"user_tiers": {"u2": "free"}}
    assert await fetchval("SELECT settings_version FROM tenants") == version + 1, "copies of it are read again"
    history = await deployment.books.fetch("SELECT * FROM tenant_changes ORDER BY change_id")
    assert USER not in str(history)
    assert "u2" in str(history)
    assert [(row["action"], row["changed_by"]) for row in history][-1] == ("user_erased", "tests")


async def test_the_place_of_filling_a_model_is_moved_for_its_own_tenant_only(
    deployment: Deployment, books: ErasingBooks
) -> None:
    model = "INSERT INTO embedding_models (name, dimensions, state, filled_tenant, filled_user, filled_item) "
    for tenant in (TENANT, "other"):
        await deployment.books.execute(f"{model} VALUES ($1, 8, 'retired', $1, $2, 5)", tenant, USER)
    await books.apart(a_user(), 1, "tests")
    rows = await deployment.books.fetch(
        "SELECT filled_tenant, filled_user, filled_item FROM embedding_models ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [(TENANT, "", 0), ("other", USER, 5)]


async def test_a_run_that_is_just_coming_to_the_user_writes_its_place_first(
    deployment: Deployment, books: ErasingBooks, ops_pool: Pool, eventually: Eventually
) -> None:
    await deployment.books.execute("INSERT INTO embedding_models (name, dimensions, state) VALUES ('m', 8, 'retired')")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with deployment.books.transaction():
        place = "UPDATE embedding_models SET filled_tenant = $1, filled_user = $2, filled_item = 5"
        await deployment.books.execute(place, TENANT, USER)
        erasing = asyncio.create_task(books.apart(a_user(), 1, "tests"))
        await eventually(lambda: ops_pool.fetchval(waiting))
    await erasing
    assert await deployment.books.fetchval("SELECT filled_user FROM embedding_models") == ""


async def test_who_takes_an_erasure_over_has_it_alone(
    deployment: Deployment, books: ErasingBooks, ops_pool: Pool
) -> None:
    request = await begin(books, 100)

    async def claimed() -> list[str]:
        return [str(row["request"]) for row in await ops_pool.fetch("SELECT * FROM claim_erasures(10, 60)")]

    assert await claimed() == [], "somebody works on it"
    await deployment.books.execute("UPDATE erasures SET lease_until = now()")
    assert await claimed() == [request]
    assert await claimed() == []
    assert await books.note(TENANT, request, {"messages": 1}, done=True, lease_s=0)
    assert await books.note(TENANT, request, {"messages": 1}, done=True, lease_s=0) is None
    assert json.loads((await erasure(deployment))["counts"]) == {"messages": 1}
    await deployment.books.execute("UPDATE erasures SET lease_until = now()")
    assert await claimed() == [], "it is done"
    assert await begin(books, 300) != request
