"""How tenants and keys look in a terminal: a table for people, tab-separated lines in a pipe, JSON where asked for."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.tenants.records import ApiKey, Change, NewKey, Tenant
from shared.jobs import rfc3339

_TENANTS = ("tenant", "name", "plan", "version", "updated", "state")
_KEYS = ("key", "tenant", "label", "scopes", "made", "by", "state")


class Printer:
    """Results, on stdout."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def tenants(self, tenants: Sequence[Tenant]) -> None:
        if self._json:
            line(as_json([tenant.resource() for tenant in tenants]))
        else:
            table(_TENANTS, map(_tenant_cells, tenants))

    def tenant(self, tenant: Tenant, changes: Sequence[Change] = ()) -> None:
        resource = tenant.resource()
        if self._json:
            line(as_json({**resource, "changes": [change.resource() for change in changes]} if changes else resource))
            return
        for name, value in zip(_TENANTS, _tenant_cells(tenant), strict=True):
            line(f"{name:<9} {value}")
        for name in ("settings", "in_force"):
            line(f"{name.replace('_', ' ')}\n{_indented(resource[name])}")
        for change in changes:
            line(f"{when(change.changed_us)}  {change.action} by {change.changed_by}")

    def keys(self, keys: Sequence[ApiKey]) -> None:
        if self._json:
            line(as_json([key.resource() for key in keys]))
        else:
            table(_KEYS, map(_key_cells, keys))

    def new_key(self, made: NewKey) -> None:
        """The key alone on stdout, for a pipe; the rest beside it."""
        if self._json:
            line(as_json(made.resource()))
            return
        line(made.key)
        sys.stderr.write(f"key {made.row.id} of {made.row.tenant}: keep it now, it is not shown again\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            line("\t".join(row))
        return
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _tenant_cells(tenant: Tenant) -> list[str]:
    state = "active" if tenant.disabled_us is None else f"disabled {when(tenant.disabled_us)}"
    plan = tenant.resource()["in_force"]["plan"]
    return [tenant.id, plain(tenant.name), plan, str(tenant.settings_version), when(tenant.updated_us), state]


def _key_cells(key: ApiKey) -> list[str]:
    if key.revoked_us is not None:
        state = f"revoked {when(key.revoked_us)}"
    else:
        state = "valid" if key.expires_us is None else f"until {when(key.expires_us)}"
    label = plain(key.label)
    return [key.id, key.tenant, label, ",".join(key.scopes), when(key.created_us), plain(key.created_by), state]


def plain(text: str) -> str:
    """One line without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text) or "-"


def when(unix_us: int) -> str:
    return rfc3339(unix_us)[:19] + "Z"


def _indented(value: Any) -> str:
    text = msgspec.json.format(as_json(value))
    return "\n".join(f"  {line}" for line in text.splitlines())


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
