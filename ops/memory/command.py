"""`switchboard memory …`, as it is typed. For operators: models are the whole deployment's.

Only the shape of the command line is here; what it does is `ops.memory.terminal`, loaded when a command runs.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.memory.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help="See and change what memory is searched by.")
models = typer.Typer(no_args_is_help=True, help="Embedding models: move memory from one to another without a gap.")
app.add_typer(models, name="models")

Name = Annotated[str, typer.Argument(help="local:all-minilm-l6-v2, or openai:<model>[@<dimensions>]", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay, with a progress bar, until it is done.")]


@models.command("list")
def list_(json: Json = False) -> None:
    """List the models, the active one first, with what each has and lacks."""
    _run(lambda terminal: terminal.list(), json=json)


@models.command()
def add(
    name: Name,
    floor: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Cosine below which nothing is alike; default: the model's.")
    ] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Search by it as soon as it is complete.")] = False,
    wait: Wait = True,
    json: Json = False,
) -> None:
    """Embed all of memory for a further model, in the background, while the active one serves."""
    _run(lambda terminal: terminal.add(name, floor, activate=activate, wait=wait or activate), json=json)


@models.command()
def activate(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Even though some memories lack their vector.")] = False,
    json: Json = False,
) -> None:
    """Search by this model from now on. The one before stays up to date, until it is retired."""
    _run(lambda terminal: terminal.activate(name, force=force), json=json)


@models.command()
def retire(name: Name, wait: Wait = True, json: Json = False) -> None:
    """Delete a model's vectors, step by step."""
    _run(lambda terminal: terminal.retire(name, wait=wait), json=json)


@models.command()
def progress(name: Name, json: Json = False) -> None:
    """Watch a model being completed."""
    _run(lambda terminal: terminal.progress(name), json=json)


@app.command()
def late(
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    job: Annotated[str, typer.Argument(metavar="JOB")],
    json: Json = False,
) -> None:
    """Show what was said in a job and is not taken in (no item) or not embedded yet, and why. Words find the latter."""
    _run(lambda terminal: terminal.late(tenant, job), json=json)


def _run(action: "Callable[[Terminal], Awaitable[int]]", *, json: bool) -> None:
    from ops.memory.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), action, json=json))
