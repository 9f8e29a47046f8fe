"""Channels in Postgres. Writing needs switchboard_ops, and the key that credentials are sealed with.

A change is in force everywhere within `key_cache_ttl_s` of its commit (`ingress.known`); a removed channel's answer is
also taken out of Redis, where it would stand in for a Postgres that is down.
"""

import secrets
import string
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import structlog

from agents.api import Agent
from ops.channels.document import Fault, checked, held
from ops.channels.records import ChannelRow, KeptRow
from ops.tenants.books import no_such_tenant
from shared import keys
from shared.channels import registry
from shared.channels.registry import AnyChannel
from shared.db import Pool, jsonb
from shared.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unavailable
from shared.redis import Commands
from shared.sealing import Sealer, Unreadable, credentials_about
from shared.tenants import merged
from sql import queries

log = structlog.get_logger(__name__)

_ID_CHARACTERS = string.ascii_lowercase + string.digits
_ROUNDS = 10
"""How often a change without a version is tried anew because another one came in between."""
_COLUMNS = ("name", "agent", "domain", "feature")


class NewChannel(NamedTuple):
    kind: str
    name: str
    agent: str
    domain: str | None
    feature: str | None
    settings: Mapping[str, Any]
    credentials: Mapping[str, Any]


class ChannelWish(NamedTuple):
    """A change. `settings` and `credentials` are JSON merge patches; of the rest, None: as it is."""

    settings: Mapping[str, Any] = {}
    credentials: Mapping[str, Any] = {}
    columns: Mapping[str, str] = {}
    version: int | None = None
    """Only if this is still the version; None: whatever it is."""


class _Found(NamedTuple):
    row: ChannelRow
    sealed: str


class ChannelBooks:
    def __init__(
        self, pool: Pool, ops_pool: Pool | None, commands: Commands, sealer: Sealer, agents: Mapping[str, Agent]
    ) -> None:
        """`ops_pool` None: the deployment has none, and nothing can be changed."""
        self._pool, self._ops_pool, self._commands, self._sealer = pool, ops_pool, commands, sealer
        self._agents, self._adapters = frozenset(agents), registry.load()

    async def page(self, tenant: str | None, after: str | None, limit: int) -> list[ChannelRow]:
        """By id; all tenants' when `tenant` is None."""
        rows = await self._reading(tenant).fetch(queries["list_channels"], tenant, after, limit)
        return [msgspec.json.decode(row["channel"], type=ChannelRow) for row in rows]

    async def find(self, tenant: str | None, channel_id: str) -> ChannelRow:
        return (await self._found(tenant, channel_id)).row

    async def kept(self, tenant: str | None, channel_id: str, limit: int) -> list[KeptRow]:
        """What came through it and is no message, the newest first."""
        row = await self.find(tenant, channel_id)
        rows = await self._reading(tenant).fetch(queries["list_inbound_kept"], row.tenant, channel_id, limit)
        return [msgspec.json.decode(one["kept"], type=KeptRow) for one in rows]

    async def create(self, tenant: str, new: NewChannel, by: str) -> ChannelRow:
        """Raises InvalidRequest with all faults."""
        adapter = self._adapters.get(new.kind)
        if adapter is None:
            words = f"is not known; there are {', '.join(self._adapters)}"
            raise _faulty([{"field": "kind", "message": words}])
        settings, credentials = merged({}, new.settings), merged({}, new.credentials)
        self._check(adapter, new.agent, settings, credentials)
        channel_id = "ch-" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(16))
        document = {
            **{name: getattr(new, name) for name in ("kind", *_COLUMNS)},
            "settings": settings,
            "held": held(adapter, credentials),
        }
        sealed = self._seal(tenant, channel_id, credentials)
        args = (tenant, channel_id, jsonb(document), sealed, by)
        raw = await self.writing().fetchval(queries["create_channel"], *args)
        if raw is None:
            raise no_such_tenant()
        return msgspec.json.decode(raw, type=ChannelRow)

    async def change(self, tenant: str | None, channel_id: str, wish: ChannelWish, by: str) -> ChannelRow:
        """Raises Conflict for a version that is not the present one any more, InvalidRequest with all faults."""
        for _ in range(_ROUNDS):
            found = await self._found(tenant, channel_id)
            if wish.version not in (None, found.row.version):
                break
            credentials = merged(self._credentials(found), wish.credentials)
            changed = await self._replace(found, wish, credentials, by)
            if changed is not None:
                return changed
        raise _stale()

    async def rotate(
        self, tenant: str | None, channel_id: str, values: Mapping[str, Any], keep: int, by: str
    ) -> ChannelRow:
        """New values of secrets; of those that can have several, `keep` older ones stay valid."""
        for _ in range(_ROUNDS):
            found = await self._found(tenant, channel_id)
            old = self._credentials(found)
            lists = _lists(self._adapter(found.row))
            new = {
                name: [value, *old.get(name, [])][: keep + 1] if name in lists else value
                for name, value in values.items()
            }
            changed = await self._replace(found, ChannelWish(), {**old, **new}, by)
            if changed is not None:
                return changed
        raise _stale()

    async def remove(self, tenant: str | None, channel_id: str, by: str) -> ChannelRow:
        """With its credentials. What it brought stays in the books."""
        raw = await self.writing().fetchval(queries["remove_channel"], tenant, channel_id, by)
        if raw is None:
            raise no_such_channel()
        try:
            await self._commands.run("DEL", keys.channel(channel_id))
        except Unavailable as error:
            log.warning("channel_not_forgotten", channel=channel_id, error=str(error))
        return msgspec.json.decode(raw, type=ChannelRow)

    async def resume(self, tenant: str | None, channel_id: str, by: str) -> ChannelRow:
        """Its replies are tried again at once; nothing changes for one that is not paused."""
        raw = await self.writing().fetchval(queries["resume_channel"], tenant, channel_id, by)
        if raw is None:
            raise no_such_channel()
        return msgspec.json.decode(raw, type=ChannelRow)

    async def reseal(self, by: str) -> tuple[int, list[str]]:
        """Seals all credentials with the first key. How many were, and the channels whose none of the keys opens."""
        done, unreadable, after = 0, [], None
        while page := await self.page(None, after, 100):
            for row in page:
                found = await self._found(None, row.id)
                if self._sealer.is_current(found.sealed):
                    continue
                if not (credentials := self._credentials(found)):
                    unreadable.append(row.id)
                elif await self._replace(found, ChannelWish(), credentials, by) is not None:
                    done += 1
            after = page[-1].id
        return done, unreadable

    def writing(self) -> Pool:
        """The pool that may change things, and see all tenants. Raises Forbidden where there is none."""
        if self._ops_pool is None:
            raise Forbidden(
                "Channels are changed by the database role switchboard_ops: set SWITCHBOARD_OPS_DATABASE_URL."
            )
        return self._ops_pool

    def _reading(self, tenant: str | None) -> Pool:
        return self._pool if tenant is not None else self.writing()

    async def _found(self, tenant: str | None, channel_id: str) -> _Found:
        row = await self._reading(tenant).fetchrow(queries["find_channel"], tenant, channel_id)
        if row is None:
            raise no_such_channel()
        return _Found(msgspec.json.decode(row["channel"], type=ChannelRow), row["sealed"])

    async def _replace(
        self, found: _Found, wish: ChannelWish, credentials: dict[str, Any], by: str
    ) -> ChannelRow | None:
        """None when another change came first."""
        old, adapter = found.row, self._adapter(found.row)
        columns = {name: wish.columns.get(name, getattr(old, name)) for name in _COLUMNS}
        settings = merged(old.settings, wish.settings)
        self._check(adapter, str(columns["agent"]), settings, credentials)
        document = {**columns, "settings": settings, "held": held(adapter, credentials)}
        sealed = self._seal(old.tenant, old.id, credentials)
        args = (old.tenant, old.id, old.version, jsonb(document), sealed, by)
        row = await self.writing().fetchrow(queries["change_channel"], *args)
        if row is None or row["channel"] is None:
            raise no_such_channel()
        return None if row["stale"] else msgspec.json.decode(row["channel"], type=ChannelRow)

    def _adapter(self, row: ChannelRow) -> AnyChannel:
        adapter = self._adapters.get(row.kind)
        if adapter is None:
            raise Conflict(f"This version does not know channels of the kind {row.kind}.", code="unknown_kind")
        return adapter

    def _check(
        self, adapter: AnyChannel, agent: str, settings: Mapping[str, Any], credentials: Mapping[str, Any]
    ) -> None:
        faults = checked(adapter, settings, credentials)
        if agent not in self._agents:
            faults.append({"field": "agent", "message": f"must be one of {', '.join(sorted(self._agents))}"})
        if faults:
            raise _faulty(faults)

    def _credentials(self, found: _Found) -> dict[str, Any]:
        """Empty when none of the keys opens them: then all must be given anew."""
        try:
            text = self._sealer.open(found.sealed, about=credentials_about(found.row.tenant, found.row.id))
        except Unreadable as error:
            log.warning("credentials_unreadable", channel=found.row.id, reason=str(error))
            return {}
        return msgspec.json.decode(text, type=dict[str, Any])

    def _seal(self, tenant: str, channel_id: str, credentials: Mapping[str, Any]) -> str:
        if not self._sealer.usable:
            raise Forbidden("Credentials cannot be kept: SWITCHBOARD_CREDENTIALS_KEY is not set.")
        return self._sealer.seal(msgspec.json.encode(credentials), about=credentials_about(tenant, channel_id))


def no_such_channel() -> NotFound:
    return NotFound("There is no such channel.")


def _lists(adapter: AnyChannel) -> frozenset[str]:
    """Credentials that can have several valid values."""
    return frozenset(field.name for field in msgspec.structs.fields(adapter.credentials) if field.type == list[str])


def _faulty(faults: list[Fault]) -> InvalidRequest:
    return InvalidRequest("The channel has faults; `errors` lists all of them.", faults=faults)


def _stale() -> Conflict:
    return Conflict(
        "The channel was changed meanwhile; read it again and repeat what is still wanted.", code="stale_version"
    )
