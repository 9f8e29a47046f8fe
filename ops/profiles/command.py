"""`switchboard users …`: what is known of a tenant's users.

Only the shape of the command line is here; what it does is `ops.profiles.terminal`, loaded when a command runs.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.profiles.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help="See, put right and erase what is known of users.")
profile = typer.Typer(no_args_is_help=True, help="Name, language, and whether short answers are wanted.")
facts = typer.Typer(no_args_is_help=True, help="What users told, and when it held.")
app.add_typer(profile, name="profile")
app.add_typer(facts, name="facts")

Tenant = Annotated[str, typer.Argument(help="Whose user.", metavar="TENANT")]
User = Annotated[str, typer.Argument(help="As callers name their user.", metavar="USER")]
Topic = Annotated[str, typer.Argument(help="Such as home_city.", metavar="TOPIC")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@profile.command("show")
def show_profile(tenant: Tenant, user: User, json: Json = False) -> None:
    """Show a user's profile."""
    _run(tenant, user, lambda terminal: terminal.show_profile(), json=json)


@profile.command("set")
def set_profile(
    tenant: Tenant,
    user: User,
    assignments: Annotated[
        list[str], typer.Argument(help="name=Ada, language=de, prefers_concise=true; =null takes it out.")
    ],
    json: Json = False,
) -> None:
    """Change a user's profile. What is written here is not replaced by what is found in conversations."""
    _run(tenant, user, lambda terminal: terminal.set_profile(assignments), json=json)


@profile.command("erase")
def erase_profile(tenant: Tenant, user: User, json: Json = False) -> None:
    """Erase a user's profile."""
    _run(tenant, user, lambda terminal: terminal.erase_profile(), json=json)


@facts.command("list")
def list_facts(
    tenant: Tenant,
    user: User,
    past: Annotated[bool, typer.Option("--past", help="Also what held once.")] = False,
    json: Json = False,
) -> None:
    """List what is known of a user, the newest first."""
    _run(tenant, user, lambda terminal: terminal.list_facts(past=past), json=json)


@facts.command("set")
def set_fact(
    tenant: Tenant,
    user: User,
    topic: Topic,
    text: Annotated[str, typer.Argument(help="One sentence.", metavar="TEXT")],
    json: Json = False,
) -> None:
    """Write a fact: it holds from now on, whatever was known of its topic."""
    _run(tenant, user, lambda terminal: terminal.set_fact(topic, text), json=json)


@facts.command("erase")
def erase_facts(
    tenant: Tenant,
    user: User,
    topic: Annotated[str | None, typer.Argument(help="This topic only, its past included.", metavar="[TOPIC]")] = None,
    json: Json = False,
) -> None:
    """Erase what is known of a user."""
    _run(tenant, user, lambda terminal: terminal.erase_facts(topic), json=json)


def _run(tenant: str, user: str, action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> None:
    from ops.profiles.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), (tenant, user), action, json=json))
