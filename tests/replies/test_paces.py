"""Paces as the database keeps them: exact, for a whole channel and each peer, all or nothing."""

import json

import asyncpg

from tests.delivery.conftest import TENANT

PAIR = {"peer": "1", "interval_us": 6_000_000, "burst": 45}


async def take(books: asyncpg.Connection, *paces: dict[str, object], patience_us: int = 0) -> int:
    query = "SELECT take_pace($1, 'ch', $2, $3)"
    found: int = await books.fetchval(query, TENANT, json.dumps(paces), patience_us)
    return found


async def passes(books: asyncpg.Connection, seconds: float) -> None:
    await books.execute(f"UPDATE channel_paces SET next_at = next_at - interval '{seconds} s'")  # noqa: S608 - a number


async def test_a_pair_may_borrow_45_messages_and_then_pays_six_seconds_for_each(books: asyncpg.Connection) -> None:
    async with books.transaction():  # one moment
        assert [await take(books, PAIR) for _ in range(45)] == [0] * 45
    wait_us = await take(books, PAIR)
    assert 5e6 < wait_us <= 6e6
    assert await take(books, {**PAIR, "peer": "2"}) == 0
    await passes(books, 6)
    assert await take(books, PAIR) == 0
    assert await take(books, PAIR) > 0


async def test_a_refused_one_takes_no_place_anywhere(books: asyncpg.Connection) -> None:
    whole, peer = (
        {"peer": "", "interval_us": 1_000_000, "burst": 9},
        {"peer": "1", "interval_us": 60_000_000, "burst": 1},
    )
    assert await take(books, whole, peer) == 0
    before = await books.fetch("SELECT * FROM channel_paces ORDER BY peer")
    for _ in range(20):
        assert await take(books, whole, peer) > 0
    assert await books.fetch("SELECT * FROM channel_paces ORDER BY peer") == before


async def test_a_short_wait_takes_its_place_in_the_line(books: asyncpg.Connection) -> None:
    pace = {"peer": "", "interval_us": 500_000, "burst": 1}
    async with books.transaction():  # one moment
        waits = [await take(books, pace, patience_us=1_000_000) for _ in range(4)]
        assert waits[0] == 0
        assert 0 < waits[1] < waits[2] <= 1_000_000 < waits[3]
        again = await take(books, pace, patience_us=1_000_000)
        assert again > 1_000_000


async def test_old_paces_are_forgotten(books: asyncpg.Connection) -> None:
    await take(books, PAIR, {**PAIR, "peer": "2"})
    await passes(books, 7_200)
    await take(books, PAIR)
    await books.fetchval("SELECT recover_deliveries(8)")
    assert [row["peer"] for row in await books.fetch("SELECT peer FROM channel_paces")] == ["1"]
