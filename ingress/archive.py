"""Postgres as ingress sees it: keys and finished jobs, for cold paths only.

Messages are accepted without it. A server that is down at the start, or later, costs these look-ups a 503 until it is
back; a role or schema that a person must mend, and a Redis of another deployment, stop the start. When the server comes
after the start only, they make this process not ready.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog

from ingress.auth import Principal, principal_of
from ingress.channels.directory import ChannelRecord, record_of
from shared import deployment
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.errors import ConfigError, Unavailable
from shared.jobs import JobRecord
from shared.redis import Commands
from shared.wire import Said
from sql import queries

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 3.0
"""A server that hangs must not hold callers for longer."""
REOPEN_AFTER_S = 0.5
LOOK_AGAIN_S = 2.0


class BranchPoint(msgspec.Struct, frozen=True):
    newest: bool
    """Nothing was said in its conversation after it."""
    said: list[Said] = []
    """Until then, the newest messages, oldest first; where they were asked for, or it is not the newest."""


class Archive:
    """Opens its pool when it is first needed and the server is there. Every look-up raises Unavailable."""

    def __init__(self, settings: Settings, commands: Commands) -> None:
        self._settings, self._commands = settings, commands
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._failed_s = float("-inf")
        self.usable = True
        """False while a person must mend something that the start could not see."""

    async def start(self) -> None:
        """Try once; raises ConfigError only."""
        try:
            await self._opened()
        except Unavailable as error:
            log.warning("postgres_unavailable", error=str(error), consequence="unknown keys and old jobs get 503")

    async def run(self) -> None:
        """Until the server was seen once: only then is it known whether this Redis is of our deployment."""
        while self._pool is None:
            await asyncio.sleep(LOOK_AGAIN_S)
            with suppress(Unavailable):
                await self._reopened()

    def pools(self) -> list[Pool]:
        """Its pool, if there is one yet."""
        return [self._pool] if self._pool else []

    async def aclose(self) -> None:
        if self._pool:
            await self._pool.close()

    async def api_key(self, sha256: str) -> Principal | None:
        async with self._answering() as pool:
            row = await pool.fetchrow(queries["resolve_api_key"], sha256)
        return principal_of(row) if row else None

    async def channel(self, channel_id: str) -> ChannelRecord | None:
        async with self._answering() as pool:
            row = await pool.fetchrow(queries["resolve_channel"], channel_id)
        return record_of(row) if row else None

    async def job(self, tenant: str, job_id: str) -> JobRecord | None:
        """A job that has ended; its latest run."""
        async with self._answering() as pool:
            record = await pool.fetchval(queries["job_record"], tenant, job_id)
        return msgspec.json.decode(record, type=JobRecord) if record else None

    async def response(self, tenant: str, job_id: str) -> JobRecord | None:
        """The same, with what a request in OpenAI's form said beyond the message, and whether it is forgotten."""
        async with self._answering() as pool:
            record = await pool.fetchval(queries["response_record"], tenant, job_id)
        return msgspec.json.decode(record, type=JobRecord) if record else None

    async def response_input(self, tenant: str, job_id: str) -> list[Said] | None:
        """What was asked in a job that has ended, oldest first."""
        async with self._answering() as pool:
            asked = await pool.fetchval(queries["response_input"], tenant, job_id)
        return msgspec.json.decode(asked, type=list[Said]) if asked else None

    async def branch_point(self, tenant: str, job_id: str, *, branch: bool, most: int) -> BranchPoint | None:
        """Of a job that has ended; None when the books do not have it (yet). `branch`: with what was said."""
        async with self._answering() as pool:
            point = await pool.fetchval(queries["branch_point"], tenant, job_id, branch, most)
        return msgspec.json.decode(point, type=BranchPoint) if point else None

    async def forget_response(self, tenant: str, job_id: str) -> None:
        """For good, also of a job that has not ended yet."""
        async with self._answering() as pool:
            await pool.fetchval(queries["forget_response"], tenant, job_id)

    async def ping(self) -> None:
        """Reachable, and migrated: a pool opens on nothing else."""
        async with self._answering() as pool:
            await pool.fetchval("SELECT 1")

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[Pool]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                yield self._pool or await self._reopened()
        except TimeoutError:
            raise Unavailable("Postgres did not answer in time") from None

    async def _reopened(self) -> Pool:
        try:
            pool = await self._opened()
        except ConfigError as error:  # said at start when the server was there; now callers can only wait
            self.usable = False
            log.exception("postgres_unusable")
            raise Unavailable("Postgres cannot be used") from error
        self.usable = True
        return pool

    async def _opened(self) -> Pool:
        """One attempt at a time, and after a failed one a pause that fails at once."""
        async with self._opening:
            if self._pool:
                return self._pool
            if time.monotonic() - self._failed_s < REOPEN_AFTER_S:
                raise Unavailable("Postgres cannot be reached")
            settings = self._settings
            self._failed_s = time.monotonic()
            pool = await open_pool(
                settings.database_url,
                settings.db_pool_size,
                environment=settings.environment,
                prepared_statements=settings.db_prepared_statements,
            )
            try:
                await deployment.claim(self._commands, pool, settings.environment)
            except BaseException:
                await pool.close()
                raise
            self._pool = pool
            return pool
