"""`switchboard channels …`: the messengers that tenants' users write from, and their credentials.

Only the shape of the command line is here; what it does is `ops.channels.terminal`, loaded when a command runs.
Credentials come from a file or stdin, never as arguments: those are seen by everybody on the machine.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.channels.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help="Connect messengers: WhatsApp, Twilio, Telegram, Slack.")

ChannelId = Annotated[str, typer.Argument(help="The channel's id.", metavar="CHANNEL")]
Assignments = Annotated[list[str] | None, typer.Argument(help="phone_number_id=…, public_url=https://…; =null: none.")]
Credentials = Annotated[str, typer.Option(help="A file with a JSON object of them; - reads stdin.", metavar="FILE")]
Name = Annotated[str | None, typer.Option(help="For people.")]
Domain = Annotated[str | None, typer.Option(help="For the books, of all its messages.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(help="Whose it is.", metavar="TENANT")],
    kind: Annotated[str, typer.Argument(help="whatsapp, twilio, telegram or slack.")],
    credentials: Credentials,
    agent: Annotated[str, typer.Option(help="Who answers.")],
    assignments: Assignments = None,
    name: Name = None,
    domain: Domain = None,
    json: Json = False,
) -> None:
    """Connect a messenger; prints the path that its provider is told to call."""
    columns = {"kind": kind, "agent": agent, "name": name, "domain": domain}
    _run(lambda terminal: terminal.create(tenant, columns, assignments or [], credentials), json=json)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="One tenant's; else all.")] = None, json: Json = False
) -> None:
    """List channels."""
    _run(lambda terminal: terminal.list(tenant), json=json)


@app.command()
def show(channel: ChannelId, json: Json = False) -> None:
    """Show a channel; of its credentials only which there are."""
    _run(lambda terminal: terminal.show(channel), json=json)


@app.command("set")
def set_(
    channel: ChannelId,
    assignments: Assignments = None,
    credentials: Annotated[
        str | None, typer.Option(help="A file with a JSON merge patch of them; - reads stdin.", metavar="FILE")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Who answers.")] = None,
    name: Name = None,
    domain: Domain = None,
    version: Annotated[int | None, typer.Option(min=1, help="Only if this is still its version.")] = None,
    json: Json = False,
) -> None:
    """Change a channel. In force everywhere within a second."""
    columns = {"agent": agent, "name": name, "domain": domain}
    if not assignments and credentials is None and not any(columns.values()):
        raise typer.BadParameter("nothing to change: give setting=value, --credentials, --agent or --name")
    _run(lambda terminal: terminal.set(channel, columns, assignments or [], credentials, version), json=json)


@app.command()
def rotate(
    channel: ChannelId,
    credentials: Credentials,
    keep: Annotated[int, typer.Option(min=0, max=3, help="How many older values stay valid.")] = 1,
    json: Json = False,
) -> None:
    """Give a channel new secrets; the ones before stay valid beside them."""
    _run(lambda terminal: terminal.rotate(channel, credentials, keep), json=json)


@app.command()
def remove(channel: ChannelId, json: Json = False) -> None:
    """Disconnect a messenger and forget its credentials. What it brought stays in the books."""
    _run(lambda terminal: terminal.remove(channel), json=json)


@app.command()
def resume(channel: ChannelId, json: Json = False) -> None:
    """Try a paused channel's replies again, now."""
    _run(lambda terminal: terminal.resume(channel), json=json)


@app.command()
def kept(
    channel: ChannelId,
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest.")] = 20,
    json: Json = False,
) -> None:
    """Show what came through a channel and is no message to answer."""
    _run(lambda terminal: terminal.kept(channel, limit), json=json)


@app.command()
def reseal() -> None:
    """Encrypt all credentials anew with the first key of SWITCHBOARD_CREDENTIALS_KEY; then the others can go."""
    _run(lambda terminal: terminal.reseal(), json=False)


def _run(action: "Callable[[Terminal], Awaitable[None]]", *, json: bool) -> None:
    from ops.channels.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), action, json=json))
