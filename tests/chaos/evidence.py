"""What a run left behind: rows of Postgres, keys of Redis, the provider's books. Read only, judged in verdict.py."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
from redis.asyncio import Redis

from shared import keys
from tests.chaos.load import Accepted
from tests.chaos.storm import Window

Row = Mapping[str, Any]

BOOKKEEPING = ("sb:job:", "sb:events:", "sb:owner:", "sb:idem:", "sb:apikey:", "sb:model:", keys.SPENT, keys.DEPLOYMENT)
BOOKKEEPING += (keys.PROBE,)
"""Keys that outlive a job for a while and expire by themselves."""
STANDING = {f"{keys.DEFAULT_QUEUE}:{part}" for part in ("wake", "health-check", "leases", "slots")}
STANDING |= {keys.SCRAPE, keys.MONEY, keys.MODELS}
"""Keys of a queue with workers and without jobs."""
READ_S = 1.0
POSTGRES_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The last one is how a connection that is cut at a bad moment surprises asyncpg itself."""
QUERIES = {
    "jobs": "SELECT job_id, run, state, attempts, reply, created_at, started_at, finished_at FROM jobs",
    "messages": "SELECT conversation_id, seq, job_id, role, body FROM messages ORDER BY conversation_id, seq",
    "calls": "SELECT call_id, tenant_id, user_id, conversation_id, job_id, attempt, error_code, status, model,"
    " estimated, input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, cost_nano_usd,"
    " request_id FROM llm_calls ORDER BY call_id",
    "deliveries": "SELECT conversation_id, job_id, run, event_type, sequence FROM deliveries"
    " ORDER BY conversation_id, sequence",
}


@dataclass(frozen=True)
class Evidence:
    accepted: Sequence[Sequence[Accepted]]
    """By conversation, in the order of acceptance."""
    jobs: Sequence[Row]
    messages: Sequence[Row]
    calls: Sequence[Row]
    deliveries: Sequence[Row]
    served: Sequence[Row]
    """The provider's books, call by call (ops.standin.books.Entry)."""
    records: Mapping[str, Mapping[str, str]]
    """Job id → state and reply as Redis shows them to callers."""
    keys_left: Sequence[str]
    """Redis keys that only work under way may have."""
    leases: Sequence[str]
    """Faults of the leases, while all workers lived and after they had left."""
    windows: Sequence[Window]
    max_attempts: int
    lease_s: float
    errors: Mapping[str, str] = field(default_factory=dict)
    """Job id → what its failed attempts said (JSON), for jobs that had any."""
    exits: Sequence[str] = ()
    """Processes that ended though nobody had asked for it, or otherwise than asked."""
    counters: Sequence[str] = ()
    """Of spent money: where they are not the ledger's sums, or something is still held."""
    memory: Sequence[Sequence[int]] = ()
    """Of each life of a process: its resident bytes, second by second."""


@dataclass
class BookReader:
    """Copies the provider's books while they grow: the stand-in keeps only the last 10,000 calls."""

    client: httpx.AsyncClient
    entries: list[Row] = field(default_factory=list)
    concurrency: int = 0

    async def read(self) -> None:
        """What was booked since the last time."""
        answer = await self.client.get("/_served", params={"last": "10000"})
        books = answer.raise_for_status().json()
        new = books["calls"] - len(self.entries)
        if new > len(books["requests"]):
            raise AssertionError("the stand-in's books were read too late: calls are missing")
        self.entries += books["requests"][len(books["requests"]) - new :]
        self.concurrency = books["concurrency"]

    async def keep_reading(self) -> None:
        while True:
            await self.read()
            await asyncio.sleep(READ_S)


async def read_postgres(dsn: str) -> dict[str, list[Row]]:
    connection = await asyncpg.connect(dsn)
    try:
        return {name: [dict(row) for row in await connection.fetch(query)] for name, query in QUERIES.items()}
    finally:
        await connection.close()


class EndedCounter:
    """How many jobs are over, over one connection for as long as it lasts."""

    def __init__(self, dsn: Callable[[], str]) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None

    async def count(self) -> int | None:
        """None while Postgres is away."""
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(self._dsn(), timeout=2)
            count: int = await self._connection.fetchval("SELECT count(*) FROM jobs", timeout=5)
        except POSTGRES_AWAY:
            self.close()
            return None
        return count

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def read_records(redis: Redis, job_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    records: dict[str, dict[str, str]] = {}
    for start in range(0, len(job_ids), 1_000):
        batch = job_ids[start : start + 1_000]
        pipe = redis.pipeline(transaction=False)
        for job_id in batch:
            pipe.hmget(keys.job(job_id), ["state", "reply"])
        for job_id, (state, reply) in zip(batch, await pipe.execute(), strict=True):
            records[job_id] = {"state": (state or b"").decode(), "reply": (reply or b"").decode()}
    return records


async def read_errors(redis: Redis, job_ids: Sequence[str]) -> dict[str, str]:
    pipe = redis.pipeline(transaction=False)
    for job_id in job_ids:
        pipe.hget(keys.job(job_id), "errors")
    return {job_id: raw.decode() for job_id, raw in zip(job_ids, await pipe.execute(), strict=True) if raw}


async def keys_left(redis: Redis) -> list[str]:
    """What no job under way explains, by name."""
    names = {name.decode() async for name in redis.scan_iter(count=1_000)}
    left = {name for name in names if not name.startswith(BOOKKEEPING)} - STANDING
    if keys.ENDED in left and not await redis.xlen(keys.ENDED):
        left.discard(keys.ENDED)  # a stream stays when its last entry is gone
    return sorted(left)


async def lease_faults(redis: Redis, *, workers: int) -> list[str]:
    """One sentence for each lease that is missing, left over or run out."""
    seconds, micros = await redis.time()
    now_ms = seconds * 1000 + micros // 1000
    leases = await redis.zrange(keys.leases("default"), 0, -1, withscores=True)
    faults = [f"lease {name.decode()} ran out and was not reaped" for name, until_ms in leases if until_ms <= now_ms]
    if len(leases) != workers:
        faults.append(f"{len(leases)} leases for {workers} workers")
    return faults
