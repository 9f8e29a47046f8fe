"""What `switchboard tenants` and `switchboard keys` do: open the servers, act, print.

Results go to stdout (aligned for people, tab-separated in a pipe, or JSON), faults to stderr, a line each.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence

from agents import registry
from ops.sight import sees_all_tenants
from ops.tenants.asks import ChangeBody, CreateBody, KeyBody, is_key_id
from ops.tenants.books import KEY_PREFIX, TenantBooks, Wish
from ops.tenants.records import ApiKey, Tenant
from ops.tenants.show import Printer
from ops.terminal.session import both_servers, said, user
from ops.terminal.typed import checked, patch_of
from shared.config import Settings
from shared.errors import InvalidRequest

PAGE = 200
ID_LENGTH = 12


def run(settings: Settings, action: "Callable[[Terminal], Awaitable[None]]", *, json: bool) -> int:
    """0, or 1 with every fault said. Raises SwitchboardError in one line for what is not about the request."""

    async def act() -> int:
        async with both_servers(settings) as (pool, commands):
            sees_all = await sees_all_tenants(pool)
            books = TenantBooks(pool, pool if sees_all else None, commands, registry.load())
            await action(Terminal(books, Printer(json=json)))
        return 0

    return said(act)


class Terminal:
    def __init__(self, books: TenantBooks, printer: Printer) -> None:
        self._books, self._printer = books, printer
        self._by = user()

    async def create(self, tenant: str, name: str, assignments: Sequence[str], patch: str | None) -> None:
        asked = checked(CreateBody, {"id": tenant, "name": name, "settings": patch_of(assignments, patch)})
        self._printer.tenant(await self._books.create(asked.id, asked.name, asked.settings, self._by))

    async def list(self) -> None:
        found: list[Tenant] = []
        while page := await self._books.page(None, found[-1].id if found else None, PAGE):
            found += page
        self._printer.tenants(found)

    async def show(self, tenant: str) -> None:
        found = await self._books.find(tenant)
        self._printer.tenant(found, await self._books.changes(tenant, None, 10))

    async def set(
        self, tenant: str, assignments: Sequence[str], patch: str | None, name: str | None, version: int | None
    ) -> None:
        asked = checked(
            ChangeBody, {"settings": patch_of(assignments, patch), "name": name, "settings_version": version}
        )
        wish = Wish(asked.settings, asked.name, asked.settings_version)
        self._printer.tenant(await self._books.change(tenant, wish, self._by, within_plan=False))

    async def switch(self, tenant: str, *, disabled: bool) -> None:
        self._printer.tenant(await self._books.switch(tenant, self._by, disabled=disabled))

    async def create_key(self, tenant: str, scopes: Sequence[str], label: str, lifetime_s: int | None) -> None:
        asked = checked(KeyBody, {"label": label, "scopes": [*scopes]})
        expires_us = None if lifetime_s is None else (int(time.time()) + lifetime_s) * 1_000_000
        self._printer.new_key(await self._books.create_key(tenant, asked.scopes, asked.label, expires_us, self._by))

    async def list_keys(self, tenant: str) -> None:
        self._printer.keys(await self._books.keys_of(tenant))

    async def revoke(self, key: str) -> None:
        revoked: ApiKey = await self._books.revoke_key(None, key_id_of(key), self._by)
        self._printer.keys([revoked])


def key_id_of(text: str) -> str:
    """The id of a key, whether it is given or the key itself. Raises InvalidRequest."""
    if text.startswith(KEY_PREFIX):
        return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]
    if not is_key_id(text):
        fault = {"field": "key", "message": f"must be a key's id, {ID_LENGTH} of 0-9 and a-f, or the key itself"}
        raise InvalidRequest("This is no key.", faults=[fault])
    return text
