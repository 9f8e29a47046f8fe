"""Tenants and keys in Postgres, and what must be forgotten elsewhere when they change.

One tenant is read through the role that row-level security binds to it. Writing needs switchboard_ops: no process that
serves tenants may make a key or raise a limit. A change is in force everywhere within `key_cache_ttl_s` of its commit,
whether or not Redis can be told (`ingress.auth`); a revocation also removes the answer that would be used while
Postgres is down.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from agents.api import Agent
from ops.tenants.document import Fault, Known, checked
from ops.tenants.reach import beyond_plan
from ops.tenants.records import ApiKey, Change, NewKey, Scope, Tenant
from shared import keys
from shared.db import Pool, jsonb
from shared.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unavailable
from shared.redis import Commands
from shared.tenants import merged
from sql import queries
from workers.ledger import prices

log = structlog.get_logger(__name__)

KEY_PREFIX = "sk-sb-"
_ROUNDS = 10
"""How often a change without a version is tried anew because another one came in between."""


class Wish(NamedTuple):
    """A change of a tenant. `settings` is a JSON merge patch."""

    settings: Mapping[str, Any]
    name: str | None = None
    version: int | None = None
    """Only if this is still the version; None: whatever it is."""


class TenantBooks:
    def __init__(self, pool: Pool, ops_pool: Pool | None, commands: Commands, agents: Mapping[str, Agent]) -> None:
        """`ops_pool` None: the deployment has none, and nothing can be changed."""
        self._pool, self._ops_pool, self._commands = pool, ops_pool, commands
        self._agents = frozenset(agents)

    async def page(self, tenant: str | None, after: str | None, limit: int) -> list[Tenant]:
        """By id; all tenants when `tenant` is None."""
        pool = self._pool if tenant is not None else self.writing()
        rows = await pool.fetch(queries["list_tenants"], tenant, after, limit)
        return [msgspec.json.decode(row["tenant"], type=Tenant) for row in rows]

    async def find(self, tenant: str) -> Tenant:
        found = await self.page(tenant, None, 1)
        if not found:
            raise no_such_tenant()
        return found[0]

    async def create(self, tenant: str, name: str, settings: Mapping[str, Any], by: str) -> Tenant:
        document = await self._checked(merged({}, settings))
        raw = await self.writing().fetchval(queries["create_tenant"], tenant, name, jsonb(document), by)
        if raw is None:
            raise Conflict("There is a tenant of this id.", code="tenant_exists")
        return msgspec.json.decode(raw, type=Tenant)

    async def change(self, tenant: str, wish: Wish, by: str, *, within_plan: bool) -> Tenant:
        """Raises Conflict for a version that is not the present one any more, InvalidRequest with all faults."""
        for _ in range(_ROUNDS):
            old = await self.find(tenant)
            if wish.version not in (None, old.settings_version):
                break
            document = await self._checked(merged(old.settings, wish.settings))
            if within_plan:
                _refuse(beyond_plan(old.settings, document))
            name = old.name if wish.name is None else wish.name
            args = (tenant, old.settings_version, name, jsonb(document), by)
            row = await self.writing().fetchrow(queries["change_tenant"], *args)
            if row is None or row["tenant"] is None:
                raise no_such_tenant()
            if not row["stale"]:
                return msgspec.json.decode(row["tenant"], type=Tenant)
        raise Conflict(
            "The tenant was changed meanwhile; read it again and repeat what is still wanted.", code="stale_version"
        )

    async def switch(self, tenant: str, by: str, *, disabled: bool) -> Tenant:
        """Disables or enables. Repeating it changes nothing."""
        raw = await self.writing().fetchval(queries["switch_tenant"], tenant, disabled, by)
        if raw is None:
            raise no_such_tenant()
        if disabled:
            rows = await self.writing().fetch(queries["live_key_hashes"], tenant)
            await self._forget([row["sha256"] for row in rows])
        return msgspec.json.decode(raw, type=Tenant)

    async def changes(self, tenant: str, before: str | None, limit: int) -> list[Change]:
        """The newest first. Nothing for an unknown tenant."""
        rows = await self._pool.fetch(queries["list_tenant_changes"], tenant, before, limit)
        return [msgspec.json.decode(row["change"], type=Change) for row in rows]

    async def keys_of(self, tenant: str) -> list[ApiKey]:
        """The newest first; revoked and expired ones too."""
        await self.find(tenant)
        rows = await self._pool.fetch(queries["list_api_keys"], tenant)
        return [msgspec.json.decode(row["key"], type=ApiKey) for row in rows]

    async def create_key(
        self, tenant: str, scopes: Sequence[Scope], label: str, expires_us: int | None, by: str
    ) -> NewKey:
        """256 random bits; only their SHA-256 is kept."""
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        digest = hashlib.sha256(key.encode()).hexdigest()
        args = (tenant, digest, sorted(set(scopes)), label, expires_us, by)
        raw = await self.writing().fetchval(queries["create_api_key"], *args)
        if raw is None:
            raise no_such_tenant()
        return NewKey(key, msgspec.json.decode(raw, type=ApiKey))

    async def revoke_key(self, tenant: str | None, key_id: str, by: str) -> ApiKey:
        """A key of `tenant`, or with None of anybody. Repeating it changes nothing."""
        row = await self.writing().fetchrow(queries["revoke_api_key"], tenant, key_id, by)
        if row is None:
            raise NotFound("There is no such key.")
        await self._forget([row["sha256"]])
        return msgspec.json.decode(row["key"], type=ApiKey)

    async def _forget(self, hashes: Sequence[str]) -> None:
        """Redis's answers of these keys, which would stand in for a Postgres that is down."""
        if not hashes:
            return
        try:
            await self._commands.run("DEL", *(keys.api_key(sha256) for sha256 in hashes))
        except Unavailable as error:
            log.warning(
                "keys_not_forgotten", keys=len(hashes), error=str(error), consequence="none while Postgres is up"
            )

    async def _checked(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document as it is to be stored. Raises InvalidRequest with all faults."""
        known = Known(self._agents, await asyncio.to_thread(prices.shipped))  # the first time it reads for 0.2 s
        sound, faults = checked(document, known)
        _refuse(faults)
        return sound

    def writing(self) -> Pool:
        """The pool that may change things, and see all tenants. Raises Forbidden where there is none."""
        if self._ops_pool is None:
            raise Forbidden(
                "Tenants and keys are changed by the database role switchboard_ops: set SWITCHBOARD_OPS_DATABASE_URL."
            )
        return self._ops_pool


def no_such_tenant() -> NotFound:
    return NotFound("There is no such tenant.")


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise InvalidRequest("The settings have faults; `errors` lists all of them.", faults=faults)
