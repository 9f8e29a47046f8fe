"""`switchboard endpoints …` and `switchboard deliveries …`: where events go, and what became of each.

Only the shape of the command line is here; what it does is `ops.deliveries.terminal`, loaded when a command runs.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.deliveries.terminal import Terminal

endpoints = typer.Typer(no_args_is_help=True, help="Make, list, change and remove endpoints; rotate secrets.")
deliveries = typer.Typer(no_args_is_help=True, help="Look at deliveries, and send them again.")

TenantId = Annotated[str, typer.Argument(help="The tenant's id.", metavar="TENANT")]
EndpointId = Annotated[str, typer.Argument(help="Id of the endpoint.", metavar="ENDPOINT")]
Tenant = Annotated[str | None, typer.Option(help="This tenant's only. Needed without SWITCHBOARD_OPS_DATABASE_URL.")]
Event = Annotated[list[str] | None, typer.Option(help="job.succeeded, job.dead …; repeat it. Default: all.")]
Form = Annotated[str | None, typer.Option("--format", help="switchboard, or openai: bodies of OpenAI's webhooks.")]
Overlap = Annotated[int, typer.Option(min=0, help="Seconds for which the secrets before sign as well.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
DAY_S = 86_400


@endpoints.command()
def create(
    tenant: TenantId,
    url: Annotated[str, typer.Argument(help="Where events go.")],
    event: Event = None,
    form: Form = "switchboard",
    description: Annotated[str, typer.Option(help="For people.")] = "",
    json: Json = False,
) -> None:
    """Have a tenant's events sent to a URL, and print the secret that signs them, this once."""
    given = {"url": url, "event_types": event or [], "format": form, "description": description}
    _run(tenant, lambda terminal: terminal.create(tenant, given), json=json)


@endpoints.command("list")
def list_endpoints(tenant: Tenant = None, json: Json = False) -> None:
    """List endpoints."""
    _run(tenant, lambda terminal: terminal.endpoints(), json=json)


@endpoints.command("set")
def set_endpoint(
    endpoint: EndpointId,
    url: Annotated[str | None, typer.Option(help="Where events go.")] = None,
    event: Event = None,
    form: Form = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Switch it off or on.")] = None,
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Change an endpoint. Enabling it forgives what it has failed."""
    change = {"url": url, "event_types": event, "format": form, "description": description, "disabled": disable}
    _run(tenant, lambda terminal: terminal.change(endpoint, change), json=json)


@endpoints.command()
def rotate(endpoint: EndpointId, overlap_s: Overlap = DAY_S, tenant: Tenant = None, json: Json = False) -> None:
    """Make a new secret for an endpoint and print it, this once."""
    _run(tenant, lambda terminal: terminal.rotate(endpoint, overlap_s), json=json)


@endpoints.command("rotate-default")
def rotate_default(tenant: TenantId, overlap_s: Overlap = DAY_S, json: Json = False) -> None:
    """Print the secret that signs a tenant's callback URLs; from the second time on make a new one."""
    _run(tenant, lambda terminal: terminal.rotate_default(tenant, overlap_s), json=json)


@endpoints.command()
def remove(endpoint: EndpointId, tenant: Tenant = None, json: Json = False) -> None:
    """Send nothing there any more."""
    _run(tenant, lambda terminal: terminal.remove(endpoint), json=json)


@deliveries.command("list")
def list_deliveries(
    tenant: Tenant = None,
    state: Annotated[str | None, typer.Option(help="pending, retrying, parked, unknown, delivered, failed …")] = None,
    endpoint: Annotated[str | None, typer.Option(help="To this endpoint only.")] = None,
    job: Annotated[str | None, typer.Option(help="Of this job only.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    json: Json = False,
) -> None:
    """List deliveries, the newest first."""
    wanted = {"state": state, "endpoint_id": endpoint, "job_id": job}
    _run(tenant, lambda terminal: terminal.list(wanted, limit), json=json)


@deliveries.command()
def show(
    delivery: Annotated[str, typer.Argument(help="Id of the delivery.")], tenant: Tenant = None, json: Json = False
) -> None:
    """Show a delivery: what is sent, and each attempt."""
    _run(tenant, lambda terminal: terminal.show(delivery), json=json)


@deliveries.command()
def replay(
    delivery: Annotated[list[str] | None, typer.Argument(help="Ids of deliveries.")] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that have failed, with --endpoint to one only.")
    ] = False,
    endpoint: Annotated[str | None, typer.Option(help="To this endpoint only.")] = None,
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Send deliveries again, now, under their ids."""
    if bool(delivery) is failed:
        raise typer.BadParameter("name deliveries, or --failed")
    wanted = {"state": "failed", "endpoint_id": endpoint}
    _run(tenant, lambda terminal: terminal.replay(delivery, wanted), json=json)


def _run(tenant: str | None, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> None:
    from ops.deliveries.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), tenant, action, json=json))
