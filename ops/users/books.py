"""Users in Postgres: who there is, all that is held of one, and what an erasure does there, a step at a time.

Every step may be repeated. What deletes is for switchboard_ops, in functions that are bound to the tenant.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from ops.users.whom import Whom
from shared.db import Pool, Row, jsonb
from shared.errors import Forbidden, NotFound
from shared.jobs import rfc3339
from sql import queries
from workers.erasure.subjects import address_of

ROWS = 20_000
"""Looked at in one step: a fraction of a second."""
_FIRST = "00000000-0000-0000-0000-000000000000"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """The fields from `conversations` on are those of one that was asked for."""

    id: str
    tenant: str
    profile: dict[str, Any]
    created_us: int
    conversations: int | None = None
    messages: int | None = None
    last_us: int | None = None

    def resource(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": self.id, "object": "user", "tenant": self.tenant, "profile": self.profile}
        shown["created_at"] = rfc3339(self.created_us)
        if self.conversations is not None:
            last_at = None if self.last_us is None else rfc3339(self.last_us)
            shown |= {"conversations": self.conversations, "messages": self.messages, "last_at": last_at}
        return shown


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """Content-free: neither the user nor anything of theirs."""

    id: str
    tenant: str
    kind: str
    state: str
    counts: dict[str, int]
    erased_before_us: int
    requested_us: int
    requested_by: str
    done_us: int | None

    @property
    def done(self) -> bool:
        return self.state == "done"

    def resource(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "erasure",
            "tenant": self.tenant,
            "kind": self.kind,
            "state": self.state,
            "counts": self.counts,
            "erased_before": rfc3339(self.erased_before_us),
            "requested_at": rfc3339(self.requested_us),
            "requested_by": self.requested_by,
            "done_at": None if self.done_us is None else rfc3339(self.done_us),
        }


class UserBooks:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, tenant: str, after: str | None, limit: int) -> list[User]:
        """By id."""
        rows = await self._pool.fetch(queries["list_users"], tenant, after, limit)
        return [msgspec.json.decode(row["user"], type=User) for row in rows]

    async def find(self, tenant: str, user: str) -> User:
        raw = await self._pool.fetchval(queries["show_user"], tenant, user)
        if raw is None:
            raise NotFound("There is no such user.")
        return msgspec.json.decode(raw, type=User)

    async def rows(self, tenant: str, user: str) -> AsyncIterator[bytes]:
        """Each row that is held of the user, as a line of JSON; however many there are, only some at a time."""
        async with self._pool.connection() as connection, connection.transaction():
            async for row in connection.cursor(queries["export_user"], tenant, user, address_of(user)):
                yield row["line"].encode() + b"\n"

    async def conversations_of(self, tenant: str, user: str) -> list[str]:
        rows = await self._pool.fetch(queries["conversations_of"], tenant, user)
        return [row["conversation"] for row in rows]

    async def erasure(self, tenant: str, request: str) -> Erasure:
        raw = await self._pool.fetchval(queries["find_erasure"], tenant, request)
        if raw is None:
            raise NotFound("There is no such erasure.")
        return msgspec.json.decode(raw, type=Erasure)


class ErasingBooks:
    """The steps of one erasure."""

    def __init__(self, pool: Pool) -> None:
        """`pool` is of the role switchboard_ops."""
        self._pool = pool

    async def begin(
        self, whom: Whom, sealed: str, subjects: Sequence[str], before_us: int, *, by: str, lease_s: int
    ) -> str:
        """The fence, and what a turn could read is gone. Adds what conversations were found; the erasure's id.

        Raises Forbidden when the role is another one.
        """
        args = (whom.tenant, subjects[0], sealed, by, whom.user, whom.conversations, subjects, before_us, lease_s)
        try:
            row = await self._pool.fetchrow(queries["begin_erasure"], *args)
        except asyncpg.InsufficientPrivilegeError as error:
            raise Forbidden(
                "Users are erased by the database role switchboard_ops: set SWITCHBOARD_OPS_DATABASE_URL."
            ) from error
        if row is None:
            raise NotFound("There is no such tenant.")
        whom.add(set(row["conversations"]))
        return str(row["request"])

    async def fence(self, whom: Whom, request: str, sealed: str, subjects: Sequence[str], before_us: int) -> None:
        await self._one("fence_erasure", whom.tenant, request, sealed, subjects, before_us)

    async def horizon(self) -> str:
        return str((await self._one("erasure_horizon"))["horizon"])

    async def passed(self, horizon: str) -> bool:
        return bool((await self._one("erasure_passed", horizon))["passed"])

    async def again(self, whom: Whom, before_us: int) -> Mapping[str, int]:
        row = await self._one("erase_again", whom.tenant, whom.user, whom.conversations, before_us)
        return _counts(row["counts"])

    async def apart(self, whom: Whom, before_us: int, by: str) -> Mapping[str, int]:
        args = (whom.tenant, whom.user, whom.address, whom.conversations, before_us, by)
        return _counts((await self._one("erase_apart", *args))["counts"])

    async def calls(self, whom: Whom, before_us: int) -> Mapping[str, int]:
        """The ledger keeps the money and loses the user."""
        found: Counter[str] = Counter()
        async for row in self._walk("erase_calls", whom, before_us):
            found["llm_calls"] += row["erased"]
        return found

    async def jobs(
        self, whom: Whom, before_us: int, before_each: Callable[[list[str]], Awaitable[None]]
    ) -> Counter[str]:
        """Deletes them; `before_each` is told the ids of those that are about to go, some at a time."""
        found: Counter[str] = Counter()
        async for row in self._walk("erase_jobs", whom, before_us, False):
            if row["jobs"]:
                await before_each(row["jobs"])
        async for row in self._walk("erase_jobs", whom, before_us, True):
            found.update(_counts(row["counts"]))
        return found

    async def note(
        self, tenant: str, request: str, counts: Mapping[str, int], *, done: bool, lease_s: int
    ) -> Erasure | None:
        """None when somebody else has done it."""
        raw = (await self._one("note_erasure", tenant, request, jsonb(counts), done, lease_s))["erasure"]
        return msgspec.json.decode(raw, type=Erasure) if raw else None

    async def user_month(self, whom: Whom, month: Any) -> tuple[int, int]:
        row = await self._one("spent_by_user", whom.tenant, whom.user, month)
        return row["cost_nano_usd"], row["tokens"]

    async def conversation(self, whom: Whom, conversation: str) -> tuple[int, int]:
        row = await self._one("conversation_spent", whom.tenant, conversation)
        return row["cost_nano_usd"], row["tokens"]

    async def _walk(self, step: str, whom: Whom, before_us: int, *more: object) -> AsyncIterator[Row]:
        after: str | None = _FIRST
        while after is not None:
            args = (whom.tenant, whom.user, whom.conversations, before_us, after, ROWS, *more)
            row = await self._one(step, *args)
            yield row
            after = row["next"] if row["looked"] == ROWS else None

    async def _one(self, query: str, *args: object) -> Row:
        row = await self._pool.fetchrow(queries[query], *args)
        if row is None:
            raise RuntimeError(f"{query} returns one row")
        return row


def _counts(raw: str) -> dict[str, int]:
    return msgspec.json.decode(raw, type=dict[str, int])
