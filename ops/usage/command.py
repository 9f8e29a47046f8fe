"""`switchboard usage report`: what was used and what it cost, from a terminal or in a pipe, straight from Postgres.

The report goes to stdout. Exit code 2 when what is asked for makes no sense.
"""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.usage.report import Question, Report

app = typer.Typer(no_args_is_help=True, help="What was used and what it cost.")

_CLI_NAMES = {"from_": "from"}


@app.callback()
def usage() -> None:
    """What was used and what it cost."""


@app.command()
def report(  # noqa: PLR0913, PLR0917 - one parameter for each option
    by: Annotated[
        str,
        typer.Option(help="hour|day|week|month, tenant, user, agent, model, provider, domain, feature, …: day,agent"),
    ] = "day",
    period: Annotated[
        Literal["hour", "day", "week", "month"] | None, typer.Option(help="The current one, UTC. Default: month.")
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help="A day or an RFC 3339 moment, in UTC.")] = None,
    to: Annotated[str | None, typer.Option(help="Before this day or moment. Default: now.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Needed without SWITCHBOARD_OPS_DATABASE_URL.")] = None,
    user: Annotated[str | None, typer.Option(help="Calls for this user.")] = None,
    agent: Annotated[str | None, typer.Option(help="Calls of this agent.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Calls in this conversation.")] = None,
    domain: Annotated[str | None, typer.Option(help="Calls booked to this domain.")] = None,
    feature: Annotated[str | None, typer.Option(help="Calls booked to this feature.")] = None,
    kind: Annotated[str | None, typer.Option(help="Calls of this kind, e.g. chat.")] = None,
    provider: Annotated[str | None, typer.Option(help="Calls of this provider.")] = None,
    model: Annotated[str | None, typer.Option(help="Calls of this model.")] = None,
    status: Annotated[str | None, typer.Option(help="ok, error, cut, aborted, lost or cached ones.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="The dearest groups only.")] = None,
    fill: Annotated[bool, typer.Option("--fill", help="A zero line for each unit of time without calls.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV (RFC 4180) on stdout.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Sum up model calls: how many, tokens, cost, savings. Failed, lost and kept ones are in it and shown apart."""
    given = dict(locals())
    as_csv, as_json = given.pop("csv"), given.pop("json")
    if as_csv and as_json:
        raise typer.BadParameter("--csv or --json, not both")
    asked = _question({_CLI_NAMES.get(name, name): value for name, value in given.items() if value is not None})
    _print(asyncio.run(_read(Settings.read(), asked)), csv=as_csv, json=as_json)


def _question(given: dict[str, Any]) -> "Question":
    from datetime import UTC, datetime  # noqa: PLC0415 - loaded when a command runs

    from pydantic import ValidationError  # noqa: PLC0415 - loaded when a command runs

    from ops.usage.asks import UsageQuery  # noqa: PLC0415 - loaded when a command runs
    from shared.errors import InvalidRequest  # noqa: PLC0415 - loaded when a command runs

    try:
        return UsageQuery.model_validate(given).question(datetime.now(UTC))
    except ValidationError as error:
        faults = [(str(item["loc"][0]), item["msg"]) for item in error.errors(include_url=False, include_input=False)]
    except InvalidRequest as error:
        faults = [(fault["field"], fault["message"]) for fault in error.faults]
    raise typer.BadParameter("; ".join(f"--{field} {message}" for field, message in faults))


async def _read(settings: Settings, asked: "Question") -> "Report":
    from ops.terminal.session import postgres  # noqa: PLC0415 - loaded when a command runs
    from ops.usage.books import UsageBooks  # noqa: PLC0415 - loaded when a command runs

    async with postgres(settings, connections=1) as pool:
        books = await UsageBooks.over(pool)
        books.check_reach(asked.filter.tenant)
        return await books.report(asked)


def _print(found: "Report", *, csv: bool, json: bool) -> None:
    from ops.usage import show  # noqa: PLC0415 - loaded when a command runs

    if csv:
        sys.stdout.write(show.as_csv(found))
    elif json:
        show.json(found)
    else:
        show.table(found)
