"""A clock for the scripts that tests set: exact to the µs, forwards and backwards, and keys end by it too."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis

from ingress import strangers
from shared import scripts
from shared.scripts import Script

KEY = "test:clock"
EDITS = {
    "redis.call('TIME')": f"redis.call('HMGET', '{KEY}', 's', 'us')",
    "redis.call('PEXPIRE', key, int(length_us / 500))": (
        "redis.call('HSET', 'test:ends', key, int(tonumber(now_us) + math.floor(length_us / 500) * 1000))"
    ),
}
"""The scripts' own ways to ask the time, and to say when a window's key ends."""
SECOND = 1_000_000


@contextmanager
def edited() -> Iterator[None]:
    """Within, `admit` and `stranger` take the time from a `Clock`."""
    loaded: list[Script] = [scripts._admit, strangers._stranger]
    sources = [script.source for script in loaded]
    for script in loaded:
        source = script.source
        for old, new in EDITS.items():
            assert old in source, f"{script.name} has this text no more: {old}"
            source = source.replace(old, new)
        _load(script, source)
    try:
        yield
    finally:
        for script, source in zip(loaded, sources, strict=True):
            _load(script, source)


class Clock:
    """Unix µs. Use it within `edited`."""

    def __init__(self, redis: Redis, now_us: int = 1_795_000_000 * SECOND) -> None:
        self._redis = redis
        self.now_us = now_us

    async def move(self, by_us: int) -> list[str]:
        """Keys whose time is over are gone afterwards, as the server would have them; which."""
        self.now_us += by_us
        s, us = divmod(self.now_us, SECOND)
        await self._redis.hset(KEY, mapping={"s": s, "us": us})
        ends = await self._redis.hgetall("test:ends")
        over = [key.decode() for key, ends_us in ends.items() if int(ends_us) <= self.now_us]
        for key in over:
            await self._redis.delete(key)
            await self._redis.hdel("test:ends", key)
        return over


def _load(script: Script, source: str) -> None:
    script.source = source
    script.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
