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
            _line(_json([tenant.resource() for tenant in tenants]))
        else:
            _table(_TENANTS, map(_tenant_cells, tenants))

    def tenant(self, tenant: Tenant, changes: Sequence[Change] = ()) -> None:
        resource = tenant.resource()
        if self._json:
            _line(_json({**resource, "changes": [change.resource() for change in changes]} if changes else resource))
            return
        for name, value in zip(_TENANTS, _tenant_cells(tenant), strict=True):
            _line(f"{name:<9} {value}")
        for name in ("settings", "in_force"):
            _line(f"{name.replace('_', ' ')}\n{_indented(resource[name])}")
        for change in changes:
            _line(f"{_when(change.changed_us)}  {change.action} by {change.changed_by}")

    def keys(self, keys: Sequence[ApiKey]) -> None:
        if self._json:
            _line(_json([key.resource() for key in keys]))
        else:
            _table(_KEYS, map(_key_cells, keys))

    def new_key(self, made: NewKey) -> None:
        """The key alone on stdout, for a pipe; the rest beside it."""
        if self._json:
            _line(_json(made.resource()))
            return
        _line(made.key)
        sys.stderr.write(f"key {made.row.id} of {made.row.tenant}: keep it now, it is not shown again\n")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            _line("\t".join(row))
        return
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _tenant_cells(tenant: Tenant) -> list[str]:
    state = "active" if tenant.disabled_us is None else f"disabled {_when(tenant.disabled_us)}"
    plan = tenant.resource()["in_force"]["plan"]
    return [tenant.id, _plain(tenant.name), plan, str(tenant.settings_version), _when(tenant.updated_us), state]


def _key_cells(key: ApiKey) -> list[str]:
    if key.revoked_us is not None:
        state = f"revoked {_when(key.revoked_us)}"
    else:
        state = "valid" if key.expires_us is None else f"until {_when(key.expires_us)}"
    label = _plain(key.label)
    return [key.id, key.tenant, label, ",".join(key.scopes), _when(key.created_us), _plain(key.created_by), state]


def _plain(text: str) -> str:
    """One line without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text) or "-"


def _when(unix_us: int) -> str:
    return rfc3339(unix_us)[:19] + "Z"


def _indented(value: Any) -> str:
    text = msgspec.json.format(_json(value))
    return "\n".join(f"  {line}" for line in text.splitlines())


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
