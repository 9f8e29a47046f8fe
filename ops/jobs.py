"""`switchboard jobs stats`: how full the queues are, for people and for autoscalers that run a command."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.queues import QueueStats

app = typer.Typer(no_args_is_help=True, help="Jobs on their way.")

_HEADINGS = {
    "queue": "queue",
    "depth": "never started",
    "due": "due",
    "delayed": "to retry",
    "in_flight": "in flight",
    "oldest_age_s": "oldest (s)",
    "live_workers": "workers",
    "slots": "slots",
    "utilisation": "utilisation",
    "desired_workers": "desired",
}


@app.callback()
def jobs() -> None:
    """Jobs on their way."""


@app.command()
def stats(
    queue: Annotated[list[str] | None, typer.Option(help="These queues only. Default: those of all agents.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Show each queue: depth, age, in flight, workers there are and workers there should be."""
    found = asyncio.run(_read(Settings.read(), queue or []))
    if json:
        import msgspec  # noqa: PLC0415 - loaded by this command only

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _print(found)


async def _read(settings: Settings, queues: list[str]) -> "list[QueueStats]":
    from agents import registry  # noqa: PLC0415 - loaded by this command only
    from ops.queues import read_stats  # noqa: PLC0415 - loaded by this command only
    from shared.redis import Commands, connect  # noqa: PLC0415 - loaded by this command only

    known = sorted({settings.queue, *(agent.queue for agent in registry.load().values())})
    commands = Commands(connect(settings.redis_url, max_connections=2))
    try:
        return await read_stats(commands, queues or known, slots_per_worker=settings.worker_concurrency)
    finally:
        await commands.aclose()


def _print(found: "list[QueueStats]") -> None:
    """A table, or tab-separated with a heading in a pipe."""
    from rich.console import Console  # noqa: PLC0415 - loaded by this command only
    from rich.table import Table  # noqa: PLC0415 - loaded by this command only

    rows = [[_cell(getattr(one, field)) for field in _HEADINGS] for one in found]
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in [list(_HEADINGS), *rows]:
            sys.stdout.write("\t".join(row) + "\n")
        return
    table = Table(*_HEADINGS.values(), box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)
