"""Looks for a text in everything the product keeps: every column of every table, every key and value of Redis."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.asyncio import Redis

_TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY table_name
"""


@dataclass(frozen=True)
class Everywhere:
    books: asyncpg.Connection
    """As superuser: sees every tenant, partitions by themselves."""
    redis: Redis

    async def find(self, *texts: str) -> list[str]:
        """A line for each place where one of them stands."""
        found = [place async for place in self._in_books(*texts)]
        for text in texts:
            found += [place async for place in self._in_redis(text.encode())]
        return found

    async def _in_books(self, *texts: str) -> AsyncIterator[str]:
        """Every table is read whole, once: that many questions are quick, one for each column and text is not."""
        for table in await self.books.fetch(_TABLES):
            name = table["table_name"]
            rows = await self.books.fetch(f'SELECT to_jsonb(t)::text AS row FROM "{name}" AS t')  # noqa: S608 - names of ours
            counts: Counter[tuple[str, str]] = Counter()
            for column, value in (pair for row in rows for pair in json.loads(row["row"]).items()):
                shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                # bytea is shown as hex
                counts.update((column, text) for text in texts if text in shown or text.encode().hex() in shown)
            for (column, text), count in sorted(counts.items()):
                yield f"{name}.{column}: {count} × {text}"

    async def _in_redis(self, text: bytes) -> AsyncIterator[str]:
        async for name in self.redis.scan_iter(count=1_000):
            if text in name or any(text in value for value in await self._values(name)):
                yield f"{name.decode()}: {text.decode()}"

    async def _values(self, name: bytes) -> list[bytes]:
        kind = (await self.redis.type(name)).decode()
        found = await _READ[kind](self.redis, name)
        return list(_flat(found))


_READ: dict[str, Callable[[Redis, bytes], Awaitable[Any]]] = {
    "string": lambda redis, name: redis.get(name),
    "hash": lambda redis, name: redis.hgetall(name),
    "list": lambda redis, name: redis.lrange(name, 0, -1),
    "set": lambda redis, name: redis.smembers(name),
    "zset": lambda redis, name: redis.zrange(name, 0, -1),
    "stream": lambda redis, name: redis.xrange(name),
    "none": lambda redis, name: redis.get(name),  # it expired meanwhile
}


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _flat(pair)
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from _flat(each)
