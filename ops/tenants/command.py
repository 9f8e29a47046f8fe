"""`switchboard tenants …` and `switchboard keys …`: who is served, with which settings, by which keys.

Only the shape of the command line is here; what it does is `ops.tenants.terminal`, loaded when a command runs.
"""

import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.tenants.terminal import Terminal

tenants = typer.Typer(no_args_is_help=True, help="Make tenants, change their settings, switch them off and on.")
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

_UNITS_S = {"h": 3_600, "d": 86_400, "w": 604_800}


def _lifetime_s(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,4})([hdw])", text)
    if not found:
        raise typer.BadParameter("a number and h, d or w: 12h, 90d, 52w")
    return int(found[1]) * _UNITS_S[found[2]]


TenantId = Annotated[str, typer.Argument(help="The tenant's id.", metavar="TENANT")]
Assignments = Annotated[
    list[str] | None,
    typer.Argument(
        help='rates.user_per_min=50, plan=pro, budgets.day_usd=5, cors_origins=["https://…"]; =null: the plan\'s.'
    ),
]
Patch = Annotated[str | None, typer.Option(help="A JSON merge patch of the settings; - reads it from stdin.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@tenants.command()
def create(
    tenant: TenantId,
    assignments: Assignments = None,
    name: Annotated[str | None, typer.Option(help="For people; the id when not given.")] = None,
    patch: Patch = None,
    json: Json = False,
) -> None:
    """Make a tenant. Without settings it has those of the plan `free`."""
    _run(lambda terminal: terminal.create(tenant, name or tenant, assignments or [], patch), json=json)


@tenants.command("list")
def list_(json: Json = False) -> None:
    """List all tenants."""
    _run(lambda terminal: terminal.list(), json=json)


@tenants.command()
def show(tenant: TenantId, json: Json = False) -> None:
    """Show a tenant: its settings, what is in force with its plan's defaults, and the last changes."""
    _run(lambda terminal: terminal.show(tenant), json=json)


@tenants.command("set")
def set_(
    tenant: TenantId,
    assignments: Assignments = None,
    name: Annotated[str | None, typer.Option(help="Rename it.")] = None,
    patch: Patch = None,
    version: Annotated[int | None, typer.Option(min=1, help="Only if this is still the settings' version.")] = None,
    json: Json = False,
) -> None:
    """Change settings. In force everywhere within a second."""
    if not assignments and patch is None and name is None:
        raise typer.BadParameter("nothing to change: give setting=value, --patch or --name")
    _run(lambda terminal: terminal.set(tenant, assignments or [], patch, name, version), json=json)


@tenants.command()
def disable(tenant: TenantId, json: Json = False) -> None:
    """Refuse its keys and reject its waiting jobs. Nothing is deleted."""
    _run(lambda terminal: terminal.switch(tenant, disabled=True), json=json)


@tenants.command()
def enable(tenant: TenantId, json: Json = False) -> None:
    """Serve it again."""
    _run(lambda terminal: terminal.switch(tenant, disabled=False), json=json)


@keys.command("create")
def create_key(
    tenant: TenantId,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="chat, admin or operator; repeat it for several. Default: chat.")
    ] = None,
    expires_in: Annotated[
        int | None, typer.Option(parser=_lifetime_s, metavar="TIME", help="12h, 90d, 52w. Default: never.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    _run(lambda terminal: terminal.create_key(tenant, scope or ["chat"], label, expires_in), json=json)


@keys.command("list")
def list_keys(tenant: TenantId, json: Json = False) -> None:
    """List a tenant's keys; never the keys themselves."""
    _run(lambda terminal: terminal.list_keys(tenant), json=json)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, or the key itself.", metavar="KEY")], json: Json = False
) -> None:
    """Refuse a key from now on, everywhere within a second."""
    _run(lambda terminal: terminal.revoke(key_id), json=json)


def _run(action: "Callable[[Terminal], Awaitable[None]]", *, json: bool) -> None:
    from ops.tenants.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), action, json=json))
