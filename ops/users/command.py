"""`switchboard users …`: who there is, everything that is held of one, and erasing one.

Only the shape of the command line is here; what it does is `ops.users.terminal`, loaded when a command runs.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.users.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help="List a tenant's users; show, export or erase one.")

TenantId = Annotated[str, typer.Argument(help="The tenant's id.", metavar="TENANT")]
UserId = Annotated[str, typer.Argument(help="The user's id, as messages name it.", metavar="USER")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command("list")
def list_(tenant: TenantId, limit: Annotated[int, typer.Option(min=1, max=100_000)] = 200, json: Json = False) -> None:
    """List users by id."""
    _run(lambda terminal: terminal.list(tenant, limit), json=json)


@app.command()
def show(tenant: TenantId, user: UserId, json: Json = False) -> None:
    """Show a user, and how much there is of them."""
    _run(lambda terminal: terminal.show(tenant, user), json=json)


@app.command()
def export(tenant: TenantId, user: UserId) -> None:
    """Print every row that is held of a user, a line of JSON each."""
    _run(lambda terminal: terminal.export(tenant, user), json=True)


@app.command()
def erase(
    tenant: TenantId,
    user: Annotated[str | None, typer.Argument(help="The user's id, as messages name it.", metavar="USER")] = None,
    conversation: Annotated[str | None, typer.Option(help="This one conversation instead of a user.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Erase a user (or one conversation) everywhere, for good; returns when nothing is left."""
    if (user is None) == (conversation is None):
        raise typer.BadParameter("name a user, or a conversation with --conversation")
    if not yes:
        typer.confirm(f"Erase {user or conversation} of {tenant}, for good?", abort=True, err=True)
    _run(lambda terminal: terminal.erase(tenant, user, conversation), json=json)


def _run(action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> None:
    from ops.users.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), action, json=json))
