"""Counters of spent money against the ledger, as the doctor compares them."""

import json
from datetime import UTC, datetime

import asyncpg
import pytest
from redis.asyncio import Redis

from ops.doctor.findings import Level
from shared import keys
from sql import queries
from tests.conftest import Database
from tests.doctor.conftest import Examine
from tests.sql.shapes import a_failed_call, a_turn

COST, TOKENS = 1_234_567, 30


@pytest.fixture
async def spent(server: Redis, database: Database) -> dict[str, dict[str, int]]:
    """One call in the ledger, and its counters."""
    app = await asyncpg.connect(database.superuser)
    turn = a_turn(user_id="u1")
    call = a_failed_call(turn, status="ok", cost_nano_usd=COST, input_tokens=20, output_tokens=10)
    await app.fetchval(queries["end_attempt"], "acme", json.dumps([call]))
    await app.close()
    now = datetime.now(UTC)
    day, month = f"{now:%Y%m%d}", f"{now:%Y%m}"
    names = [("user", "acme", month, "u1"), ("day", "acme", day), ("month", "acme", month)]
    names += [("all-day", day), ("all-month", month), ("conv", "acme", "c-elsewhere")]
    counters = {keys.spent(*name): {"usd": COST, "tok": TOKENS, "usd_held": 0, "tok_held": 0} for name in names}
    for key, counter in counters.items():
        await server.hset(key, mapping=counter)  # type: ignore[arg-type]  # redis-py's mapping is invariant
    await server.hset(keys.MONEY, "epoch", "e")
    return counters


async def test_counters_that_agree_are_good(examined: Examine, spent: dict[str, dict[str, int]]) -> None:
    found = (await examined())["money"]
    assert (found.level, found.what) == (Level.OK, "5 counters are what the ledger says")


@pytest.mark.parametrize("how", ["more", "less", "gone", "unknown"])
async def test_the_one_that_differs_is_named_with_both_sums(
    examined: Examine, server: Redis, spent: dict[str, dict[str, int]], how: str
) -> None:
    key = next(name for name in spent if ":month:" in name)
    match how:
        case "more" | "less":
            counted = COST + (1 if how == "more" else -1)
            await server.hset(key, "usd", counted)
            said = f"{key} counts {counted} nano-USD and {TOKENS} tokens, the ledger has {COST} and {TOKENS}"
        case "gone":
            await server.delete(key)
            said = f"{key} counts 0 nano-USD and 0 tokens, the ledger has {COST} and {TOKENS}"
        case _:
            key = keys.spent("month", "nobody", key.rpartition(":")[2])
            await server.hset(key, mapping={"usd": 5, "tok": 1})
            said = f"{key} counts 5 nano-USD and 1 tokens, the ledger has 0 and 0"
    found = (await examined())["money"]
    assert (found.level, found.what) == (Level.WARNING, f"1 counters are not what the ledger says: {said}")
    assert found.mend is not None
    assert f"DEL {keys.MONEY}" in found.mend


async def test_money_that_is_held_for_nobody_is_told(
    examined: Examine, server: Redis, spent: dict[str, dict[str, int]]
) -> None:
    key = next(name for name in spent if ":day:" in name)
    await server.hset(key, "usd_held", 7)
    found = await examined()
    assert "money" not in found
    assert (found["money.held"].level, key in found["money.held"].what) == (Level.WARNING, True)


@pytest.mark.parametrize("why", ["a call", "closed"])
async def test_while_money_moves_nothing_is_compared(
    examined: Examine, server: Redis, spent: dict[str, dict[str, int]], why: str
) -> None:
    await server.hset(next(iter(spent)), "usd", 1)
    if why == "a call":
        await server.hset(keys.calls("j"), "c", "{}")
    else:
        await server.delete(keys.MONEY)
    found = (await examined())["money"]
    assert found.level is (Level.OK if why == "a call" else Level.WARNING)
    assert ("under way" if why == "a call" else "made anew") in found.what
