"""What `switchboard tenants` and `switchboard keys` do: open the servers, act, print.

Results go to stdout (aligned for people, tab-separated in a pipe, or JSON), faults to stderr, a line each.
"""

import asyncio
import hashlib
import os
import pwd
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import structlog
from pydantic import BaseModel, ValidationError

from agents import registry
from ops.tenants.asks import ChangeBody, CreateBody, KeyBody, is_key_id
from ops.tenants.books import KEY_PREFIX, TenantBooks, Wish
from ops.tenants.document import pointer
from ops.tenants.records import ApiKey, Tenant
from ops.tenants.show import Printer
from shared.config import Settings
from shared.db import open_pool
from shared.errors import InvalidRequest
from shared.redis import Commands, connect
from sql import queries

PAGE = 200
ID_LENGTH = 12
B = TypeVar("B", bound=BaseModel)


def run(settings: Settings, action: "Callable[[Terminal], Awaitable[None]]", *, json: bool) -> int:
    """0, or 1 with every fault said. Raises SwitchboardError in one line for what is not about the request."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        asyncio.run(_run(settings, action, Printer(json=json)))
    except InvalidRequest as error:
        for fault in error.faults or [{"field": "switchboard", "message": str(error)}]:
            sys.stderr.write(f"{fault['field']}: {fault['message']}\n")
        return 1
    return 0


async def _run(settings: Settings, action: "Callable[[Terminal], Awaitable[None]]", printer: Printer) -> None:
    async with opened(settings) as books:
        await action(Terminal(books, printer))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[TenantBooks]:
    pool = await open_pool(
        settings.ops_database_url or settings.database_url,
        2,
        environment=settings.environment,
        prepared_statements=settings.db_prepared_statements,
    )
    commands = Commands(connect(settings.redis_url, max_connections=2))
    try:
        sees_all = bool(await pool.fetchval(queries["sees_all_tenants"]))
        yield TenantBooks(pool, pool if sees_all else None, commands, registry.load())
    finally:
        await commands.aclose()
        await pool.close()


class Terminal:
    def __init__(self, books: TenantBooks, printer: Printer) -> None:
        self._books, self._printer = books, printer
        self._by = f"cli:{user()}"

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


def patch_of(assignments: Sequence[str], patch: str | None) -> dict[str, Any]:
    """`["rates.user_per_min=50"]` over a JSON merge patch. Raises InvalidRequest with every fault."""
    faults = []
    whole = {} if patch is None else _object(sys.stdin.read() if patch == "-" else patch)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            faults.append({"field": assignment, "message": "must be setting=value, such as rates.user_per_min=50"})
            continue
        whole = _laid_over(whole, names, _value(names[-1], value))
    if faults:
        raise InvalidRequest("The settings have faults.", faults=faults)
    return whole


def _laid_over(patch: Mapping[str, Any], names: Sequence[str], value: Any) -> dict[str, Any]:
    """The patch with one more place; unlike `merged` it keeps nulls, which say what is to go."""
    first, *rest = names
    inner = patch.get(first)
    below = _laid_over(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**patch, first: below}


def _value(name: str, text: str) -> Any:
    """JSON where it is some, else the text itself; an amount of money stays as it was written."""
    if name.endswith("_usd") and text != "null":
        return text.strip('"')
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


def key_id_of(text: str) -> str:
    """The id of a key, whether it is given or the key itself. Raises InvalidRequest."""
    if text.startswith(KEY_PREFIX):
        return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]
    if not is_key_id(text):
        fault = {"field": "key", "message": f"must be a key's id, {ID_LENGTH} of 0-9 and a-f, or the key itself"}
        raise InvalidRequest("This is no key.", faults=[fault])
    return text


def checked(model: type[B], given: Mapping[str, Any]) -> B:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = [
            {"field": pointer(*item["loc"]), "message": item["msg"]}
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidRequest("The request has faults.", faults=faults) from None


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        fault = {"field": "--patch", "message": f"must be a JSON object: {error}"}
        raise InvalidRequest("The patch cannot be read.", faults=[fault]) from None


def user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's nameless user
        return str(os.getuid())
