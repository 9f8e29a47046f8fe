"""What `switchboard channels` does: open the servers, act, print.

Results go to stdout (aligned for people, tab-separated in a pipe, or JSON), faults to stderr, a line each.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agents import registry
from ops.channels.asks import ChangeChannelBody, CreateChannelBody, RotateChannelBody
from ops.channels.books import ChannelBooks, ChannelWish, NewChannel
from ops.channels.document import spelled
from ops.channels.records import ChannelRow
from ops.channels.show import Printer
from ops.sight import sees_all_tenants
from ops.terminal.output import line, note
from ops.terminal.session import both_servers, said, user
from ops.terminal.typed import checked, patch_of
from shared.channels.registry import load as load_adapters
from shared.config import Settings
from shared.errors import InvalidRequest
from shared.sealing import Sealer

PAGE = 200


def run(settings: Settings, action: "Callable[[Terminal], Awaitable[None]]", *, json: bool) -> int:
    """0, or 1 with every fault said. Raises SwitchboardError in one line for what is not about the request."""

    async def act() -> int:
        async with both_servers(settings) as (pool, commands):
            sees_all = await sees_all_tenants(pool)
            sealer = Sealer(settings.credentials_key.get_secret_value())
            books = ChannelBooks(pool, pool if sees_all else None, commands, sealer, registry.load())
            await action(Terminal(books, Printer(json=json)))
        return 0

    return said(act)


class Terminal:
    def __init__(self, books: ChannelBooks, printer: Printer) -> None:
        self._books, self._printer = books, printer
        self._by = user()

    async def create(
        self, tenant: str, columns: Mapping[str, str | None], assignments: Sequence[str], credentials: str
    ) -> None:
        given = {
            "tenant": tenant,
            **columns,
            "settings": spelled(load_adapters().get(columns["kind"] or ""), patch_of(assignments)),
            "credentials": secrets_of(credentials),
        }
        asked = checked(CreateChannelBody, given)
        new = NewChannel(
            asked.kind,
            asked.name or asked.kind,
            asked.agent,
            asked.domain,
            asked.feature,
            asked.settings,
            asked.credentials,
        )
        self._printer.channel(await self._books.create(tenant, new, self._by))

    async def list(self, tenant: str | None) -> None:
        found: list[ChannelRow] = []
        while page := await self._books.page(tenant, found[-1].id if found else None, PAGE):
            found += page
        self._printer.channels(found)

    async def show(self, channel_id: str) -> None:
        self._printer.channel(await self._books.find(None, channel_id))

    async def set(
        self,
        channel_id: str,
        columns: Mapping[str, str | None],
        assignments: Sequence[str],
        credentials: str | None,
        version: int | None,
    ) -> None:
        adapter = load_adapters().get((await self._books.find(None, channel_id)).kind)
        given = {
            **columns,
            "settings": spelled(adapter, patch_of(assignments)),
            "credentials": {} if credentials is None else secrets_of(credentials),
            "version": version,
        }
        asked = checked(ChangeChannelBody, given)
        wanted = {name: value for name, value in columns.items() if value is not None}
        wish = ChannelWish(asked.settings, asked.credentials, wanted, asked.version)
        self._printer.channel(await self._books.change(None, channel_id, wish, self._by))

    async def rotate(self, channel_id: str, credentials: str, keep: int) -> None:
        asked = checked(RotateChannelBody, {"credentials": secrets_of(credentials), "keep": keep})
        changed = await self._books.rotate(None, channel_id, asked.credentials, asked.keep, self._by)
        self._printer.channel(changed)

    async def remove(self, channel_id: str) -> None:
        self._printer.channel(await self._books.remove(None, channel_id, self._by))

    async def resume(self, channel_id: str) -> None:
        self._printer.channel(await self._books.resume(None, channel_id, self._by))

    async def kept(self, channel_id: str, limit: int) -> None:
        self._printer.kept(await self._books.kept(None, channel_id, limit))

    async def reseal(self) -> None:
        done, unreadable = await self._books.reseal(self._by)
        line(f"{done}")
        for channel_id in unreadable:
            note(f"{channel_id}: none of the keys opens its credentials; set them anew")


def secrets_of(file: str) -> dict[str, Any]:
    """The JSON object in a file, or on stdin. Raises InvalidRequest, which never repeats what it read."""
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return msgspec.json.decode(raw, type=dict[str, Any])
    except OSError as error:
        words = f"cannot be read: {error.strerror}"
    except msgspec.MsgspecError:
        words = "must hold a JSON object"
    raise InvalidRequest("The credentials cannot be read.", faults=[{"field": "--credentials", "message": words}])
