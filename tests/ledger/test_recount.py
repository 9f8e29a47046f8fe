"""The counters made anew from the ledger: exactly, once, by one worker at a time, and only when it has everything."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest

from shared import keys
from shared.db import Pool, open_pool
from shared.ids import uuid7
from shared.redis import Commands, connect
from sql import queries
from tests.conftest import Database, Eventually
from tests.ledger.agreement import disagreements, read_counters
from tests.ledger.rows import a_row
from workers.erasure.subjects import Subjects
from workers.ledger.recount import Recount
from workers.turn.late import LateRows
from workers.turn.store import TurnStore

LEASE_S = 0.3


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    opened = await open_pool(database.app, 4, environment="development")
    yield opened
    await opened.close()


@pytest.fixture
async def commands(redis_url: str) -> AsyncIterator[Commands]:
    opened = Commands(connect(redis_url))
    yield opened
    await opened.aclose()


def call_at(moment: datetime) -> str:
    """A call id made then."""
    unix_ms = f"{int(moment.timestamp() * 1000):012x}"
    return f"{unix_ms[:8]}-{unix_ms[8:]}{uuid7()[13:]}"


async def fill_ledger(pool: Pool) -> None:
    """Two tenants, users and nobody, today and the days and months before."""
    now = datetime.now(UTC)
    for tenant in ("alpha", "beta"):
        rows = [
            a_row(
                call_at(now - timedelta(days=days)),
                user_id=user,
                conversation_id=f"c{n}",
                cost_nano_usd=10**n + days,
                input_tokens=n,
                output_tokens=days,
            )
            for n, user in enumerate(["u1", "u2", None, "u1"])
            for days in (0, 1, 2, 20, 40, 70)
        ]
        await pool.fetchrow(queries["end_attempt"], tenant, msgspec.json.encode(rows).decode())


async def still_kept(database: Database) -> list[asyncpg.Record]:
    """Rows of days and months that ended less than three days ago, or have not ended."""
    connection = await asyncpg.connect(database.superuser)
    try:
        return await connection.fetch("SELECT * FROM llm_calls")
    finally:
        await connection.close()


async def check(commands: Commands, database: Database) -> None:
    """Every counter there is equals its sum, and all of the current day and month are there."""
    counters = await read_counters(commands.redis)
    rows = await still_kept(database)
    now = datetime.now(UTC)
    wrong = [fault for fault in disagreements(counters, rows, forgetful=True) if "no counter" not in fault]
    assert wrong == []
    for tenant in ("alpha", "beta"):
        for name in (f"day:{tenant}:{now:%Y%m%d}", f"month:{tenant}:{now:%Y%m}", f"user:{tenant}:{now:%Y%m}:u1"):
            assert counters[name]["usd"] > 0
    assert counters[f"all-month:{now:%Y%m}"]["usd"] > counters[f"month:alpha:{now:%Y%m}"]["usd"]


async def test_money_that_never_was_open_opens_at_once_and_counts_what_older_releases_spent(
    pool: Pool, commands: Commands, database: Database
) -> None:
    await fill_ledger(pool)
    async with asyncio.timeout(60):  # and not after a lease of an hour
        await Recount(commands, pool, lease_s=3_600).start()
    assert await commands.run("HGET", keys.MONEY, "epoch")
    await check(commands, database)


async def test_lost_memory_is_made_anew_after_a_lease_by_one_of_several(
    pool: Pool, commands: Commands, database: Database
) -> None:
    await Recount(commands, pool, lease_s=LEASE_S).start()
    await fill_ledger(pool)
    await commands.redis.flushdb()
    workers = [Recount(commands, pool, lease_s=LEASE_S) for _ in range(4)]
    epochs = set()

    async def open_as(worker: Recount) -> None:
        await worker.start()
        await worker.opened()
        epochs.add(await commands.run("HGET", keys.MONEY, "epoch"))

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*map(open_as, workers))
    assert asyncio.get_running_loop().time() - began >= LEASE_S
    assert len(epochs) == 1
    await check(commands, database)


async def test_one_that_was_held_up_does_not_write_over_what_another_has_made(
    pool: Pool, commands: Commands, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock ran out while it waited for the ledger's answer; since then money is open and was spent."""
    await Recount(commands, pool, lease_s=LEASE_S).start()
    await fill_ledger(pool)
    await commands.redis.flushdb()
    slow, quick = Recount(commands, pool, lease_s=0), Recount(commands, pool, lease_s=0)
    asked, answer = asyncio.Event(), asyncio.Event()
    fetch = pool.fetch

    async def wait_once(*args: object) -> object:
        rows = await fetch(*args)  # type: ignore[arg-type]  # passed on as they came
        if not asked.is_set():
            asked.set()
            await answer.wait()
        return rows

    monkeypatch.setattr(pool, "fetch", wait_once)
    late = asyncio.ensure_future(slow.opened())
    await asked.wait()
    await commands.run("DEL", "sb:money:lock")
    await quick.opened()
    await commands.run("HINCRBY", keys.spent("all-month", f"{datetime.now(UTC):%Y%m}"), "usd_held", 7)
    answer.set()
    await late
    counters = await read_counters(commands.redis)
    assert counters[f"all-month:{datetime.now(UTC):%Y%m}"]["usd_held"] == 7


async def test_it_waits_for_open_calls_and_for_rows_that_only_a_worker_knows(
    pool: Pool, commands: Commands, database: Database, eventually: Eventually
) -> None:
    await Recount(commands, pool, lease_s=LEASE_S).start()
    await commands.redis.flushdb()
    await commands.run("HSET", keys.calls("some-job"), "call", "{}")
    seconds, _ = await commands.run("TIME")
    await commands.run("ZADD", keys.UNPOSTED, (seconds + 60) * 1000, "some-worker")
    recount = Recount(commands, pool, lease_s=0)
    opening = asyncio.ensure_future(recount.opened())

    async def looked() -> bool:
        return bool(await commands.run("EXISTS", "sb:money:closed"))

    await eventually(looked)
    assert not opening.done()
    late = LateRows(commands, TurnStore(pool, Subjects([b"k" * 32])), lease_s=LEASE_S)
    late.post("alpha", [a_row("01a1fd27-60c5-74e7-b4ff-4d8275004fae", cost_nano_usd=5)])
    await late.aclose()
    await commands.run("ZREM", keys.UNPOSTED, "some-worker")
    assert not await commands.run("EXISTS", keys.MONEY)
    await commands.run("DEL", keys.calls("some-job"))
    await opening
    assert await commands.run("ZCARD", keys.UNPOSTED) == 0


async def test_a_worker_that_asks_nobody_finds_out_and_opens_it(
    pool: Pool, commands: Commands, database: Database, eventually: Eventually
) -> None:
    """Else the first one who wants to spend, hours later, waits for a lease that could long be over."""
    await fill_ledger(pool)
    idle = Recount(commands, pool, lease_s=LEASE_S)
    await idle.start()
    idle.keep_open()
    for _ in range(2):
        epoch = await commands.run("HGET", keys.MONEY, "epoch")
        await commands.redis.flushdb()

        async def opened(before: object = epoch) -> bool:
            return await commands.run("HGET", keys.MONEY, "epoch") not in (None, before)

        await eventually(opened, timeout_s=60)
        await check(commands, database)
    await idle.aclose()


async def test_a_look_that_breaks_is_not_the_last(
    pool: Pool, commands: Commands, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    idle = Recount(commands, pool, lease_s=LEASE_S)
    await idle.start()
    await commands.redis.flushdb()
    await commands.run("RPUSH", "sb:money:lock", "what nobody expects there")
    idle.keep_open()
    await eventually(lambda: "money could not be opened" in caplog.text)
    await commands.run("DEL", "sb:money:lock")
    await eventually(lambda: commands.run("EXISTS", keys.MONEY))
    await idle.aclose()
