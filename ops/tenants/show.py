"""How tenants and keys look in a terminal: a table for people, tab-separated lines in a pipe, JSON where asked for."""

from collections.abc import Sequence

from ops.tenants.records import ApiKey, Change, NewKey, Tenant
from ops.terminal.output import as_json, indented, line, note, plain, table, when

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
            line(f"{name.replace('_', ' ')}\n{indented(as_json(resource[name], spread=True), 2)}")
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
        note(f"key {made.row.id} of {made.row.tenant}: keep it now, it is not shown again")


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
