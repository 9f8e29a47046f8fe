"""What is too old or too much goes by itself, and nothing else does."""

from datetime import UTC, datetime, timedelta

import pytest

from ops.users.retention import Retention
from shared.config import Settings
from shared.db import Pool
from tests.turn.deployment import TENANT, Deployment


async def speak(deployment: Deployment, *texts: str, **fields: str) -> None:
    for text in texts:
        await deployment.ended(await deployment.say(text, **fields))


async def age(deployment: Deployment, days: int, conversation: str) -> None:
    """As if everything that was said in it had been said so long ago; jobs are as old as their ids say."""
    books = deployment.books
    for table, columns in (
        ("messages", ("created_at",)),
        ("conversations", ("created_at", "updated_at")),
        ("jobs", ("created_at", "started_at", "finished_at")),
    ):
        changes = ", ".join(f"{column} = {column} - make_interval(days => $1)" for column in columns)
        await books.execute(f"UPDATE {table} SET {changes} WHERE conversation_id = $2", days, conversation)  # noqa: S608
    await books.execute("ALTER TABLE dead_jobs DISABLE TRIGGER ALL")
    await books.execute(
        "UPDATE jobs SET job_id = overlay(job_id::text PLACING substr(uuid7_floor(created_at)::text, 1, 13)"
        " FROM 1 FOR 13)::uuid WHERE conversation_id = $1",
        conversation,
    )


async def bodies(deployment: Deployment) -> list[str]:
    rows = await deployment.books.fetch("SELECT body FROM messages WHERE role = 'user' ORDER BY conversation_id, seq")
    return [row["body"] for row in rows]


@pytest.fixture
def retention(ops_pool: Pool, settings: Settings) -> Retention:
    return Retention(ops_pool, settings, batch=2)


async def test_what_is_older_than_the_tenant_keeps_goes_and_the_ledger_stays(
    deployment: Deployment, retention: Retention
) -> None:
    async with deployment.worker():
        await speak(deployment, "a", "b", "c", conversation="old", user="u-old")
        await speak(deployment, "d", conversation="new", user="u-new")
    await age(deployment, 91, "old")
    await deployment.books.execute("UPDATE users SET created_at = created_at - interval '91 days'")
    before = len(await deployment.ledger())
    assert await retention.run_if_due()
    assert await bodies(deployment) == ["d"]
    for table, left in (("conversations", ["u-new"]), ("jobs", ["u-new"]), ("users", ["u-new"])):
        rows = await deployment.books.fetch(f"SELECT user_id FROM {table}")  # noqa: S608 - names of tables
        assert [row["user_id"] for row in rows] == left, table
    assert len(await deployment.ledger()) == before
    assert not await retention.run_if_due(), "another process did it a moment ago"


async def test_how_long_is_the_tenants_setting(deployment: Deployment, retention: Retention) -> None:
    async with deployment.worker():
        await speak(deployment, "a", conversation="old")
    await age(deployment, 91, "old")
    await deployment.books.execute("""UPDATE tenants SET settings = '{"retention_days": 92}'""")
    await retention.run_if_due()
    assert await bodies(deployment) == ["a"]


async def test_a_conversation_that_goes_on_loses_its_old_messages_only(
    deployment: Deployment, retention: Retention
) -> None:
    async with deployment.worker():
        await speak(deployment, "a", "b", "c")
    await deployment.books.execute("UPDATE messages SET created_at = created_at - interval '91 days' WHERE seq <= 3")
    await retention.run_if_due()
    assert await bodies(deployment) == ["c"]
    async with deployment.worker():
        await speak(deployment, "d")
    seqs = await deployment.books.fetch("SELECT seq FROM messages ORDER BY seq")
    assert [row["seq"] for row in seqs] == [4, 5, 6, 7, 8]


async def test_beyond_the_caps_the_oldest_go(deployment: Deployment, ops_pool: Pool, settings: Settings) -> None:
    async with deployment.worker():
        for conversation in ("c1", "c2", "c3"):
            await speak(deployment, f"{conversation} a", f"{conversation} b", conversation=conversation)
        await speak(deployment, "x", conversation="c4", user="u2")
    capped = settings.model_copy(update={"conversation_messages": 2, "user_conversations": 2})
    gone = await Retention(ops_pool, capped, batch=3).retire(TENANT, datetime.now(UTC) - timedelta(days=90))
    assert gone == {"messages": 6, "conversations": 1}
    assert await bodies(deployment) == ["c2 b", "c3 b", "x"]


async def test_an_unreadable_setting_deletes_nothing(deployment: Deployment, retention: Retention) -> None:
    async with deployment.worker():
        await speak(deployment, "a", conversation="old")
    await age(deployment, 9_999, "old")
    await deployment.books.execute("""UPDATE tenants SET settings = '{"retention_days": "soon"}'""")
    assert await retention.run_if_due()
    assert await bodies(deployment) == ["a"]
