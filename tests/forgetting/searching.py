"""Looks for a text in everything the product keeps: every column of every table, every key and value of Redis."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.asyncio import Redis

_COLUMNS = """
SELECT c.table_name, c.column_name FROM information_schema.columns AS c JOIN information_schema.tables AS t
USING (table_schema, table_name) WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'
ORDER BY c.table_name, c.ordinal_position
"""


@dataclass(frozen=True)
class Everywhere:
    books: asyncpg.Connection
    """As superuser: sees every tenant, partitions by themselves."""
    redis: Redis

    async def find(self, *texts: str) -> list[str]:
        """A line for each place where one of them stands."""
        found = []
        for text in texts:
            found += [place async for place in self._in_books(text)]
            found += [place async for place in self._in_redis(text.encode())]
        return found

    async def _in_books(self, text: str) -> AsyncIterator[str]:
        hexed = text.encode().hex()
        for row in await self.books.fetch(_COLUMNS):
            table, column = row["table_name"], row["column_name"]
            query = (  # bytea is shown as hex
                f'SELECT count(*) FROM "{table}" WHERE position($1 IN "{column}"::text) > 0 '  # noqa: S608 - names of ours
                f'OR position($2 IN "{column}"::text) > 0'
            )
            if count := await self.books.fetchval(query, text, hexed):
                yield f"{table}.{column}: {count} × {text}"

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
