"""Tasks in Postgres: one row for each conversation and kind, claimed for a while, fenced by that claim.

A task that a worker dropped is due again when its lease is over; whoever claimed it before can write nothing any more.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from shared.db import Pool, jsonb
from shared.jobs import JobError
from shared.tenants import TenantSettings, read_settings
from sql import queries

Kind: TypeAlias = Literal["summary", "facts"]
MAX_MESSAGES = 60
"""One task looks at so many at once; the rest is its next one."""


class Task(msgspec.Struct, frozen=True):
    """A claimed one. `task_id` is what its calls are booked under, the same whenever this kind is due here."""

    tenant: str
    conversation_id: str
    kind: Kind
    user_id: str | None
    task_id: str
    claim: int
    attempt: int


class SaidMessage(msgspec.Struct, frozen=True):
    id: str
    seq: int
    role: Literal["user", "assistant"]
    text: str
    at_us: int


class KnownFact(msgspec.Struct, frozen=True):
    topic: str
    text: str


class Material(msgspec.Struct, frozen=True):
    """What a task works on: messages after `done_seq`, the oldest first, and what is known already."""

    tenant_known: bool
    settings: str
    done_seq: int
    agent: str | None
    summary: str | None
    profile: dict[str, Any]
    facts: list[KnownFact]
    messages: list[SaidMessage]

    @property
    def tenant_settings(self) -> TenantSettings:
        return read_settings(self.settings)


class Summary(NamedTuple):
    """As it is kept."""

    text: str
    prompt_version: int
    model: str


class TaskStore:
    """Every method is one statement and raises Unavailable; all may be repeated."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int, lease_s: float) -> list[Task]:
        rows = await self._pool.fetch(queries["claim_memory_tasks"], limit, lease_s)
        return [msgspec.json.decode(row["task"], type=Task) for row in rows]

    async def material(self, task: Task, keep: int) -> Material | None:
        """None: the task is not ours any more, or its conversation is gone."""
        args = (task.tenant, task.conversation_id, task.kind, task.claim, keep, MAX_MESSAGES)
        raw = await self._pool.fetchval(queries["memory_task_work"], *args)
        return None if raw is None else msgspec.json.decode(raw, type=Material)

    async def commit_summary(self, task: Task, upto: tuple[int, int], summary: Summary, calls: str) -> bool:
        """`upto`: the last message of the summary that this one replaces, and its own. `calls`: what it cost, as the
        ledger takes it; that is booked in the same transaction. False: it came too late, and is paid for only."""
        args = (task.tenant, task.conversation_id, task.claim, *upto, *summary, calls)
        return bool(await self._pool.fetchval(queries["commit_summary"], *args))

    async def commit_facts(self, task: Task, upto: tuple[int, int], found: dict[str, Any], calls: str) -> bool:
        """The same of facts."""
        args = (task.tenant, task.conversation_id, task.claim, *upto, jsonb(found), calls)
        return bool(await self._pool.fetchval(queries["commit_facts"], *args))

    async def end(
        self, task: Task, error: JobError | None = None, retry_s: float | None = None, skip_to: int | None = None
    ) -> None:
        """It is over for now. Messages up to `skip_to` are not tried again."""
        told = None if error is None else jsonb(error)
        args = (task.tenant, task.conversation_id, task.kind, task.claim, told, retry_s, skip_to)
        await self._pool.execute(queries["end_memory_task"], *args)
