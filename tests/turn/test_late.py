"""Rows of lost attempts are announced while they are posted, and what is announced does not outlive who said it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from shared import keys
from shared.redis import Commands, connect
from tests.conftest import Eventually
from tests.ledger.rows import a_row
from workers.ledger.book import LedgerRow
from workers.turn.late import LateRows
from workers.turn.store import TurnStore


class Slow:
    """Postgres that takes its time."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def post(self, _tenant: str, _rows: list[LedgerRow], _ours: Callable[[], bool], **_how: Any) -> None:
        await self.go.wait()


@pytest.fixture
async def commands(redis_url: str) -> AsyncIterator[Commands]:
    commands = Commands(connect(redis_url))
    yield commands
    await commands.aclose()


async def test_what_is_announced_runs_out_with_the_longest_lease(commands: Commands, eventually: Eventually) -> None:
    store = Slow()

    async def announced(rows: int) -> bool:
        return await commands.run("ZCARD", keys.UNPOSTED) == rows

    async def left_s() -> int:
        return int(await commands.run("TTL", keys.UNPOSTED))

    for rows, (lease_s, at_least_s) in enumerate(((40.0, 40), (4_000.0, 4_000), (4.0, 4_000)), 1):
        late = LateRows(commands, cast("TurnStore", store), lease_s=lease_s)
        late.post("acme", [a_row(f"call-{rows}")])
        assert await eventually(lambda rows=rows: announced(rows))
        assert at_least_s < await left_s() <= 2 * at_least_s + 2
    store.go.set()
    assert await eventually(lambda: announced(0))
