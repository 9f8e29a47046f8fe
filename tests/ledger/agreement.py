"""Counters of spent money against the ledger, reckoned here a second time: from its rows, by nothing of the product's.

Once no call is under way, every counter is the sum of its scope's rows, to the nano-dollar, and nothing is held.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

Counters = Mapping[str, Mapping[str, int]]
"""Name after `sb:spent:` → field → number."""


_LOOK = """
local all = {}
for _, key in ipairs(redis.call('KEYS', 'sb:spent:' .. ARGV[1])) do
  all[#all + 1] = { key, redis.call('HGETALL', key) }
end
return all
"""


async def read_counters(redis: Redis, pattern: str = "*") -> Counters:
    """As of one instant."""
    found: Any = await redis.eval(_LOOK, 0, pattern)  # type: ignore[misc]  # redis-py types both worlds at once
    return {
        key.decode().removeprefix("sb:spent:"): {
            name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)
        }
        for key, flat in found
    }


def sums_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Nano-dollars and tokens by counter, of rows of `llm_calls`."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        at = datetime.fromtimestamp((row["call_id"].int >> 80) / 1000, UTC)
        tenant, day, month = row["tenant_id"], f"{at:%Y%m%d}", f"{at:%Y%m}"
        names = [f"day:{tenant}:{day}", f"month:{tenant}:{month}", f"all-day:{day}", f"all-month:{month}"]
        if row["conversation_id"]:  # else it was erased
            names.append(f"conv:{tenant}:{row['conversation_id']}")
        if row["user_id"] is not None:
            names.append(f"user:{tenant}:{month}:{row['user_id']}")
        for name in names:
            sums[name][0] += row["cost_nano_usd"]
            sums[name][1] += row["input_tokens"] + row["output_tokens"]
    return {name: (usd, tokens) for name, (usd, tokens) in sums.items()}


def disagreements(counters: Counters, rows: Iterable[Mapping[str, Any]], *, forgetful: bool = False) -> list[str]:
    """A sentence for each counter that is not its scope's sum, or holds something.

    `forgetful`: after a loss of memory conversations are counted again when they go on, not before.
    """
    sums, faults = sums_of(rows), []
    for name in sorted(sums.keys() | counters.keys()):
        if name not in counters:
            if sums[name] != (0, 0) and not (forgetful and name.startswith("conv:")):
                faults.append(f"{name}: no counter, the ledger has {sums[name]}")
            continue
        counter, owed = counters[name], sums.get(name, (0, 0))
        if (counter["usd"], counter["tok"]) != owed:
            faults.append(f"{name}: counted {counter['usd'], counter['tok']}, the ledger has {owed}")
        if counter["usd_held"] or counter["tok_held"]:
            faults.append(f"{name}: {counter['usd_held'], counter['tok_held']} are still held")
    return faults


@dataclass
class Peaks:
    """The most that a counter came to while it was watched, settled and held together."""

    usd: dict[str, int] = field(default_factory=dict)
    looks: int = 0

    def see(self, counters: Counters) -> None:
        self.looks += 1
        for name, counter in counters.items():
            together = counter["usd"] + counter["usd_held"]
            assert min(counter.values()) >= 0, f"{name}: {counter}"
            self.usd[name] = max(self.usd.get(name, 0), together)


@contextlib.asynccontextmanager
async def watched(redis: Redis, tenant: str) -> AsyncIterator[Peaks]:
    """Looks at the counters of a tenant's months all the while."""
    peaks = Peaks()

    async def look() -> None:
        while True:
            peaks.see(await read_counters(redis, f"month:{tenant}:*"))
            await asyncio.sleep(0.01)

    looking = asyncio.ensure_future(look())
    try:
        yield peaks
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        if not looking.cancelled():
            looking.result()
