"""`switchboard alerts …`: who is told of what. Without --tenant it is about the deployment as a whole.

Only the shape of the command line is here; what it does is `ops.alerts.terminal`, loaded when a command runs.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.alerts.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help="Set alerts on budgets, costs, errors and latencies; see what was told.")

Name = Annotated[str, typer.Argument(help="The alert's name, which is yours to choose.", metavar="NAME")]
Tenant = Annotated[str | None, typer.Option(help="This tenant's. Without it: the deployment as a whole.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
_To = Annotated[list[str] | None, typer.Option(help="Repeat it for several.")]


@app.command("list")
def list_(tenant: Tenant = None, json: Json = False) -> None:
    """List alerts: everybody's without --tenant."""
    _run(tenant, lambda terminal: terminal.list(), json=json)


@app.command("set")
def set_(  # noqa: PLR0913, PLR0917 - options of a command line
    name: Name,
    metric: Annotated[str, typer.Argument(help="budget, daily_cost_usd, error_rate, p99_s, endpoint_disabled …")],
    threshold: Annotated[list[str] | None, typer.Option(help="Repeat it; default: the metric's own.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Of budgets: user-month, tenant-day …; default: all.")] = None,
    slack: _To = None,
    email: _To = None,
    webhook: _To = None,
    least: Annotated[int | None, typer.Option(min=1, help="Jobs, conversations or users needed to judge.")] = None,
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Make or replace an alert."""
    kinds = {"slack": slack, "email": email, "webhook": webhook}
    given = {
        "metric": metric,
        "thresholds": threshold,
        "scopes": scope or [],
        "least": least,
        "targets": [{"kind": kind, "to": to} for kind, targets in kinds.items() for to in targets or []],
    }
    _run(tenant, lambda terminal: terminal.set(name, given), json=json)


@app.command()
def remove(name: Name, tenant: Tenant = None, json: Json = False) -> None:
    """Remove an alert; what it has told stays in the history."""
    _run(tenant, lambda terminal: terminal.remove(name), json=json)


@app.command("test")
def send_test(name: Name, tenant: Tenant = None, json: Json = False) -> None:
    """Send a test to an alert's targets."""
    _run(tenant, lambda terminal: terminal.test(name), json=json)


@app.command()
def history(
    tenant: Tenant = None, limit: Annotated[int, typer.Option(min=1, max=1_000)] = 50, json: Json = False
) -> None:
    """Show what was crossed, the newest first: everybody's without --tenant."""
    _run(tenant, lambda terminal: terminal.history(limit), json=json)


def _run(tenant: str | None, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> None:
    from ops.alerts.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), tenant, action, json=json))
