"""What a claim reads does not grow with the receivers at which nothing can be sent now, and it scans no table."""

import json
from typing import Any, NamedTuple

import asyncpg
import pytest

from sql import queries
from tests.conftest import Eventually
from tests.delivery.conftest import Owe, Running
from tests.delivery.receiver import Receiver
from workers.delivery.books import DeliveryBooks

FEW, MANY = 20, 2_000
IN_AN_HOUR, FAILING = "due_at = now() + interval '1 hour'", "state = 'retrying', failures = 1, first_failed_at = now()"
OWED = """
INSERT INTO deliveries (tenant_id, conversation_id, job_id, run, url, event_type, sequence, body)
SELECT $1, 'c' || host, uuid7(), 1, 'https://' || host || '.example.org/', 'job.succeeded', place, '{}'
FROM generate_series($2::integer, $3::integer - 1) AS host, generate_series(1, $4::integer) AS place
"""


class Reads(NamedTuple):
    """Of the tables `deliveries` and `receivers`, in one transaction."""

    scans: int
    """Of whole tables."""
    lookups: int
    """In indexes."""
    rows: int


async def claim(books: asyncpg.Connection) -> tuple[list[dict[str, Any]], Reads]:
    async with books.transaction():
        before = await _reads(books)
        rows = await books.fetch(queries["claim_deliveries"], 100, 4, 60, 5, 40, "{}")
        after = await _reads(books)
    return [json.loads(row["delivery"]) for row in rows], Reads(*(b - a for a, b in zip(before, after, strict=True)))


async def _reads(books: asyncpg.Connection) -> Reads:
    row = await books.fetchrow(
        "SELECT sum(seq_scan) AS scans, sum(idx_scan) AS lookups, sum(idx_tup_fetch + seq_tup_read) AS rows "
        "FROM pg_stat_xact_user_tables WHERE relname IN ('deliveries', 'receivers')"
    )
    return Reads(*map(int, row))


async def wait_at(books: asyncpg.Connection, many: range, why: str) -> None:
    """Receivers that are owed something, none of which may be sent now."""
    events = 2 if why == "behind one that failed" else 1
    await books.execute(OWED, "acme", many.start, many.stop, events)
    if why == "breaker open":
        await books.execute(
            "INSERT INTO receivers AS r (tenant_id, receiver, failures, failing_since, open_until) "
            "SELECT tenant_id, receiver, 9, now(), now() + interval '5 minutes' FROM deliveries ON CONFLICT DO NOTHING"
        )
    else:
        waits = "sequence = 1 AND state = 'pending'"
        await books.execute(f"UPDATE deliveries SET {FAILING}, {IN_AN_HOUR} WHERE {waits}")  # noqa: S608
    looks = 0
    while await books.fetchval("SELECT count(*) FROM deliveries WHERE NOT seen") or looks < 20:
        assert (await claim(books))[0] == []  # each claim looks at some; from then on at none of them
        looks += 1
    for table in ("deliveries", "receivers"):
        await books.execute(f"VACUUM ANALYZE {table}")


@pytest.mark.parametrize("why", ["to be tried again later", "behind one that failed", "breaker open"])
async def test_receivers_at_which_nothing_can_be_sent_cost_a_claim_nothing(
    books: asyncpg.Connection, owe: Owe, why: str
) -> None:
    found = []
    for many in (range(FEW), range(FEW, MANY)):
        await wait_at(books, many, why)
        idle, idle_reads = await claim(books)
        await owe("https://alive.example.org/", conversation=f"alive{many}", tenant="other")
        claimed, reads = await claim(books)
        assert (idle, [one["url"] for one in claimed]) == ([], ["https://alive.example.org/"])
        found.append((idle_reads, reads))
    assert all(each.scans == 0 for each in found[1])
    assert found[1][0].lookups <= found[0][0].lookups + 5
    assert found[1][0].rows <= 10
    assert found[1][1].lookups <= found[0][1].lookups + 5
    assert found[1][1].rows <= 50


async def test_a_receiver_whose_mark_was_lost_is_found_again(
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No code is known to lose one; a row that nobody ever sends would be worse than a look a minute."""
    await owe(receiver.url)
    await books.execute("UPDATE deliveries SET seen = true, due_at = now() - interval '2 minutes'")
    await books.execute("UPDATE receivers SET look_at = 'infinity'")
    assert (await claim(books))[0] == []
    monkeypatch.setattr("workers.delivery.courier.LOOK_EVERYWHERE_EVERY_S", 0.0)
    looked = 0
    original = DeliveryBooks.look_everywhere

    async def look(of: DeliveryBooks) -> int:
        nonlocal looked
        missed = await original(of)
        looked += missed
        return missed

    monkeypatch.setattr(DeliveryBooks, "look_everywhere", look)
    async with running():
        await eventually(lambda: len(receiver.posts) == 1)
    assert looked == 1
