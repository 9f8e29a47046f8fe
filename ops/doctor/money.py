"""Do the counters of spent money say what the ledger says? They are the same integer whenever nothing is under way.

What conversations have cost is not compared: there may be millions, and the ledger is
asked for each that Redis forgot.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ops.doctor.findings import Finding, ok, warning
from ops.doctor.servers import APP, Servers
from shared import keys
from shared.budgets import counter_key
from shared.redis import Commands
from sql import queries

CHECK = "money"
NAMED = 3
"""Counters that are named when more than that differ."""
Amounts = Mapping[str, tuple[int, int]]
"""Nano-USD and tokens, by the counter's key."""
_MEND = f'redis-cli -u "$REDIS_URL" DEL {keys.MONEY}   # workers then make all counters anew, from the ledger'


async def check_counters(servers: Servers) -> list[Finding]:
    commands = servers.commands
    if not await commands.run("EXISTS", keys.MONEY):
        return [warning(CHECK, "the counters of spent money are being made anew, or no worker was ever started")]
    before = await _owed(servers)
    if under_way := await _found(commands, keys.CALLS):
        return [ok(CHECK, f"not compared: model calls of {len(under_way)} jobs are under way")]
    counted, held = await _counters(commands, before)
    if await _found(commands, keys.CALLS) or await _owed(servers) != before:
        return [ok(CHECK, "not compared: money was spent meanwhile")]
    differing = sorted(
        key for key in before.keys() | counted.keys() if before.get(key, _NONE) != counted.get(key, _NONE)
    )
    found = []
    if differing:
        said = "; ".join(_difference(key, before.get(key, _NONE), counted.get(key, _NONE)) for key in differing[:NAMED])
        found.append(warning(CHECK, f"{len(differing)} counters are not what the ledger says: {said}", _MEND))
    if held:
        what = f"{len(held)} counters hold money for calls that nobody is making, e.g. {held[0]}"
        found.append(warning(f"{CHECK}.held", what, _MEND))
    return found or [ok(CHECK, f"{len(counted)} counters are what the ledger says")]


_NONE = (0, 0)


async def _owed(servers: Servers) -> Amounts:
    """By the ledger, of every day and month that Redis may still know."""
    rows = await servers.login(APP).fetch(queries["spent_sums"], datetime.now(UTC))
    return {
        counter_key(row["kind"], row["period"], row["tenant"], row["user"]): (row["cost_nano_usd"], row["tokens"])
        for row in rows
    }


async def _counters(commands: Commands, owed: Amounts) -> tuple[Amounts, Sequence[str]]:
    """What Redis has counted, without zeros that the ledger does not know, and the counters that hold something."""
    there = [key for key in await _found(commands, keys.SPENT) if not key.startswith(keys.spent("conv", ""))]
    counted, held = {}, []
    for key in there:
        usd, tok, usd_held, tok_held = await commands.run("HMGET", key, "usd", "tok", "usd_held", "tok_held")
        counted[key] = (int(usd or 0), int(tok or 0))
        if int(usd_held or 0) or int(tok_held or 0):
            held.append(key)
    return {key: amounts for key, amounts in counted.items() if key in owed or amounts != _NONE}, sorted(held)


async def _found(commands: Commands, prefix: str) -> list[str]:
    found: set[str] = set()
    cursor: Any = 0
    while True:
        cursor, names = await commands.run("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", 1_000)
        found.update(name.decode() for name in names)
        if not int(cursor):
            return sorted(found)


def _difference(key: str, owed: tuple[int, int], counted: tuple[int, int]) -> str:
    return f"{key} counts {counted[0]} nano-USD and {counted[1]} tokens, the ledger has {owed[0]} and {owed[1]}"
