"""The dead-letter store in Postgres: filters, pages, one job with all its runs, and what operators may change in it.

`tenant` None means every tenant, which only a pool of the role switchboard_ops may ask for (`sees_all`). What a page or
a detail shows callers is built here, so that console and command line say the same.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from ops.sight import RoleBooks, sees_all_tenants
from shared.db import Pool, jsonb
from shared.errors import Conflict, NotFound
from shared.jobs import JobError, Usage, rfc3339, usd
from sql import queries

Disposition = Literal["open", "retried", "discarded"]
Position = Literal["end", "in_place"]
"""Where a retried job waits in its conversation: behind everything, or where its age puts it."""


class DeadFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a dead job must be to be meant; the names are `dead_jobs_condition`'s own. None: whatever it is."""

    tenant: str | None = None
    agent: str | None = None
    error_code: str | None = None
    state: Literal["dead", "expired", "rejected"] | None = None
    disposition: Disposition | None = None
    finished_after_us: int | None = None
    finished_before_us: int | None = None


def dead_filter(*, older_than_s: float | None, newer_than_s: float | None, disposition: str, **rest: Any) -> DeadFilter:
    """Ages as times of the end, `any` as no condition."""
    now_us = time.time_ns() // 1_000
    before_us = None if older_than_s is None else now_us - round(older_than_s * 1_000_000)
    after_us = None if newer_than_s is None else now_us - round(newer_than_s * 1_000_000)
    fields = {**rest, "disposition": None if disposition == "any" else disposition}
    return msgspec.convert({**fields, "finished_before_us": before_us, "finished_after_us": after_us}, DeadFilter)


class DeadJob(msgspec.Struct, frozen=True, kw_only=True):
    """One dead run, in short."""

    tenant: str
    job_id: str
    run: int
    state: str
    agent: str
    queue: str
    conversation_id: str
    user_id: str | None
    attempts: int
    error: JobError | None
    created_us: int
    started_us: int | None
    finished_us: int
    disposition: Disposition
    resolved_us: int | None
    resolved_by: str | None
    retry_run: int | None
    retry_position: Position | None

    def resource(self) -> dict[str, Any]:
        fields = _resource(self)
        return {"id": fields.pop("job_id"), "object": "dead_job", **fields}


class DeadRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job that died at least once; the fields from `payload` on are those of a dead one."""

    run: int
    state: str
    agent: str
    attempts: int
    error: JobError | None
    created_us: int
    started_us: int | None
    finished_us: int
    payload: dict[str, Any] | None
    attempt_errors: list[dict[str, Any]] | None
    traceback: str | None
    resolved_us: int | None
    resolved_by: str | None
    retry_position: Position | None
    retry_payload: dict[str, Any] | None
    """What the next run was given instead of `payload`."""


class DeadDetail(msgspec.Struct, frozen=True, kw_only=True):
    dead: DeadJob
    metadata: dict[str, Any]
    usage: Usage | None
    cost_nano_usd: int
    runs: list[DeadRun]

    def resource(self) -> dict[str, Any]:
        return {
            **self.dead.resource(),
            "metadata": self.metadata,
            "usage": None if self.usage is None else msgspec.to_builtins(self.usage),
            "cost_usd": usd(self.cost_nano_usd),
            "runs": [_resource(run) for run in self.runs],
        }


class LockedDead(msgspec.Struct, frozen=True, kw_only=True):
    """A job's latest dead run, while nobody else may change it. `superseded`: a later run has ended otherwise."""

    tenant: str
    run: int
    disposition: Disposition
    payload: str | None
    user_id: str | None
    created_us: int
    superseded: bool


class DeadBooks(RoleBooks):
    @classmethod
    async def over(cls, pool: Pool) -> "DeadBooks":
        return cls(pool, sees_all=await sees_all_tenants(pool))

    async def page(self, wanted: DeadFilter, after: dict[str, Any] | None, limit: int) -> list[DeadJob]:
        """At most `limit` after the row `after` (see `place_of`), the newest end first."""
        args = (jsonb(wanted), None if after is None else jsonb(after), limit)
        rows = await self._pool.fetch(queries["list_dead_jobs"], *args)
        return [msgspec.json.decode(row["summary"], type=DeadJob) for row in rows]

    async def open_after(self, wanted: DeadFilter, after: str | None, limit: int) -> list[tuple[str, str]]:
        """Tenant and id of open dead jobs in the order they were accepted, whatever disposition was wanted."""
        rows = await self._pool.fetch(queries["open_dead_jobs"], jsonb(wanted), after, limit)
        return [(row["tenant"], str(row["job_id"])) for row in rows]

    async def count(self, wanted: DeadFilter) -> int:
        return int(await self._pool.fetchval(queries["count_dead_jobs"], jsonb(wanted)))

    async def find(self, tenant: str | None, job_id: str) -> DeadDetail:
        """Raises NotFound for a job that never died, alike for another tenant's."""
        raw = await self._pool.fetchval(queries["dead_job"], tenant, job_id)
        if raw is None:
            raise no_such_dead_job()
        return msgspec.json.decode(raw, type=DeadDetail)

    async def discard(self, tenant: str | None, job_id: str, by: str) -> None:
        """Closed for good, the row stays. Repeating it changes nothing. Raises NotFound or Conflict."""
        outcome = await self._pool.fetchval(queries["discard_dead_job"], tenant, job_id, by)
        if outcome is None:
            raise no_such_dead_job()
        if outcome == "retried":
            raise Conflict("The job was retried; there is nothing to discard.", code="dead_job_retried")

    @asynccontextmanager
    async def locked(self, tenant: str | None, job_id: str) -> AsyncIterator["Lock"]:
        """The job's dead run, ours until the block ends; an error in it undoes what was marked. Raises NotFound."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await connection.fetchrow(queries["lock_dead_job"], tenant, job_id)
            if row is None:
                raise no_such_dead_job()
            yield Lock(connection, job_id, LockedDead(**dict(row)))


class Lock:
    """A dead run that nobody else changes meanwhile."""

    def __init__(self, connection: Any, job_id: str, dead: LockedDead) -> None:
        self._connection, self._job_id, self.dead = connection, job_id, dead

    async def mark_retried(self, by: str, position: Position, changed: str | None) -> None:
        """`changed` is the payload (JSON) of the next run where it differs."""
        dead = self.dead
        args = (dead.tenant, self._job_id, dead.run, by, dead.run + 1, position, changed)
        await self._connection.fetchval(queries["mark_dead_job_retried"], *args)


def place_of(dead: DeadJob) -> dict[str, Any]:
    """What `page` goes on after."""
    return {"finished_us": dead.finished_us, "job_id": dead.job_id, "run": dead.run}


def no_such_dead_job() -> NotFound:
    return NotFound("There is no such dead job.")


def _resource(row: msgspec.Struct) -> dict[str, Any]:
    """A row as shown: each `*_us` becomes an RFC 3339 `*_at`."""
    shown = {}
    for name, value in msgspec.to_builtins(row).items():
        if name.endswith("_us"):
            shown[f"{name[:-3]}_at"] = None if value is None else rfc3339(value)
        else:
            shown[name] = value
    return shown
