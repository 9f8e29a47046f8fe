"""Looks for a text in everything the product keeps: every column of every table, every key and value of Redis."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

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
        redis = self.redis
        match await redis.type(name):
            case b"string":
                return [await redis.get(name) or b""]
            case b"hash":
                return [part for pair in (await redis.hgetall(name)).items() for part in pair]
            case b"list":
                return await redis.lrange(name, 0, -1)
            case b"set":
                return list(await redis.smembers(name))
            case b"zset":
                return await redis.zrange(name, 0, -1)
            case b"stream":
                return [part for _, entry in await redis.xrange(name) for pair in entry.items() for part in pair]
            case kind:
                assert kind == b"none", kind  # it expired meanwhile
                return []
