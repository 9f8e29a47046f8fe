"""Deliveries and their logs are kept for some days after their end."""

import asyncpg
import pytest

from shared.db import open_pool
from tests.conftest import Database, Eventually
from tests.delivery.conftest import Owe, Running, states
from tests.delivery.receiver import Receiver
from workers.delivery.forget import forgotten


async def aged(books: asyncpg.Connection, days: int, *, ended: int | None = None) -> None:
    """Everything was made so many days ago, and what has ended ended then, or `ended` days ago."""
    made, over = f"interval '{days} days'", f"interval '{days if ended is None else ended} days'"
    await books.execute(
        "UPDATE deliveries SET created_at = now() - "  # noqa: S608 - numbers of the tests
        + made
        + ", finished_at = CASE WHEN finished_at IS NOT NULL THEN now() - "
        + over
        + " END"
    )
    await books.execute("ALTER TABLE delivery_attempts DISABLE TRIGGER ALL")
    await books.execute(
        "WITH renamed AS (UPDATE deliveries AS d SET delivery_id = overlay(d.delivery_id::text "  # noqa: S608
        f"PLACING left(uuid7_floor(now() - {made})::text, 13) FROM 1 FOR 13)::uuid "
        "FROM deliveries AS old WHERE old.delivery_id = d.delivery_id RETURNING old.delivery_id AS was, d.delivery_id) "
        "UPDATE delivery_attempts AS a SET delivery_id = r.delivery_id FROM renamed AS r WHERE a.delivery_id = r.was"
    )
    await books.execute("ALTER TABLE delivery_attempts ENABLE TRIGGER ALL")


@pytest.mark.parametrize("case", ["old", "not old enough", "replayed since"])
async def test_what_ended_long_ago_goes_with_its_log(
    books: asyncpg.Connection,
    database: Database,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
    case: str,
) -> None:
    days, ended, left = {"old": (31, None, 0), "not old enough": (29, None, 3), "replayed since": (31, 1, 3)}[case]
    async with running():
        for _ in range(3):
            await owe(receiver.url)

        async def all_delivered() -> bool:
            return await states(books) == ["delivered"] * 3

        await eventually(all_delivered)
    await owe(receiver.url, conversation="open")
    await aged(books, days, ended=ended)
    pool = await open_pool(database.ops, 1, environment="production")
    assert await forgotten(pool, 30, batch=2) == 3 - left
    await pool.close()
    assert sorted(await states(books)) == ["delivered"] * left + ["pending"]
    assert await books.fetchval("SELECT count(*) FROM delivery_attempts") == left


async def test_the_delivery_process_forgets(
    books: asyncpg.Connection, running: Running, owe: Owe, eventually: Eventually
) -> None:
    await owe("http://127.0.0.1:9/closed")
    await books.execute("UPDATE deliveries SET state = 'discarded', finished_at = now()")
    await aged(books, 8)

    async def gone() -> bool:
        return await states(books) == []

    async with running(delivery_retention_days=7):
        await eventually(gone)
