"""The delivery process takes into memory what turns leave in the outbox, unless it is told not to."""

import json

import asyncpg

from sql import queries
from tests.conftest import Eventually
from tests.delivery.conftest import Running
from tests.sql.shapes import a_turn


async def test_what_was_said_is_taken_in_beside_the_deliveries(
    running: Running, books: asyncpg.Connection, eventually: Eventually
) -> None:
    await books.fetchrow(queries["commit_turn"], "acme", json.dumps(a_turn(memory=True)))

    async def taken() -> bool:
        return bool(await books.fetchval("SELECT count(*) = 2 FROM memory_items WHERE kind = 'piece'"))

    async with running(memory_writer=False) as courier:
        assert courier.state == "ok"
    assert not await taken()
    async with running():
        await eventually(taken)
    assert await books.fetchval("SELECT count(*) FROM memory_outbox") == 0
