"""A tenant, a key and a change as the books have them, and as people are shown them. Times are Unix µs."""

from typing import Any, Literal

import msgspec

from shared.jobs import rfc3339
from shared.tenants import complete

Scope = Literal["chat", "admin", "operator"]
"""`admin` includes `chat`, of its own tenant; `operator` reaches the console's part of every tenant."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant with its settings."""

    id: str
    name: str
    settings: dict[str, Any]
    """What it was given; what is not there is as its plan has it."""
    settings_version: int
    """Rises by one with every change."""
    created_us: int
    updated_us: int
    disabled_us: int | None
    """Since when its keys are refused and its jobs rejected."""

    def resource(self) -> dict[str, Any]:
        shown = _resource(self, "tenant")
        return {**shown, "in_force": complete(self.settings)}


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key without the key itself, which nobody has but its owner."""

    id: str
    """The first characters of its SHA-256; `key:<id>` in the books is who acted with it."""
    tenant: str
    label: str
    scopes: list[str]
    created_us: int
    created_by: str
    expires_us: int | None
    revoked_us: int | None

    def resource(self) -> dict[str, Any]:
        return _resource(self, "api_key")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what of a tenant."""

    id: str
    tenant: str
    action: Literal[
        "created",
        "changed",
        "disabled",
        "enabled",
        "key_created",
        "key_revoked",
        "channel_created",
        "channel_changed",
        "channel_removed",
    ]
    changed_us: int
    changed_by: str
    """`key:<id>` of an API key, `cli:<user>` of the command line."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def resource(self) -> dict[str, Any]:
        return _resource(self, "tenant_change")


class NewKey(msgspec.Struct, frozen=True):
    """The only moment at which the key itself is known."""

    key: str
    row: ApiKey

    def resource(self) -> dict[str, Any]:
        return {**self.row.resource(), "key": self.key}


def _resource(row: msgspec.Struct, kind: str) -> dict[str, Any]:
    """Each `*_us` becomes an RFC 3339 `*_at`."""
    fields = msgspec.to_builtins(row)
    shown: dict[str, Any] = {"id": fields.pop("id"), "object": kind}
    for name, value in fields.items():
        if name.endswith("_us"):
            shown[f"{name[:-3]}_at"] = None if value is None else rfc3339(value)
        else:
            shown[name] = value
    return shown
