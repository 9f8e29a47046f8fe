"""`switchboard dead …`: dead jobs from a terminal or in a pipe, straight from Postgres and Redis.

Only the shape of the command line is here; what it does is `ops.dead.terminal`, loaded when a command runs. Results go
to stdout (a table for people, tab-separated lines in a pipe, or JSON), progress and refusals to stderr.
"""

import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shared.config import Settings

if TYPE_CHECKING:
    from ops.dead.books import DeadFilter
    from ops.dead.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help="Look at dead jobs, retry them, discard them.")

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _age_s(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not found:
        raise typer.BadParameter("a number and s, m, h, d or w: 90s, 15m, 2h, 3d")
    return float(found[1]) * _UNITS_S[found[2]]


def _rate_per_s(text: str | float) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/([smh]))?", str(text))  # the default comes as a number
    if not found or float(found[1]) == 0:
        raise typer.BadParameter("jobs per second, or with a unit: 10, 10/s, 300/m")
    return float(found[1]) / _UNITS_S[found[2] or "s"]


JobId = Annotated[str, typer.Argument(help="Id of the job.")]
Tenant = Annotated[str | None, typer.Option(help="This tenant's only. Needed without SWITCHBOARD_OPS_DATABASE_URL.")]
Agent = Annotated[str | None, typer.Option(help="Jobs of this agent.")]
ErrorCode = Annotated[str | None, typer.Option("--error", help="Jobs with this error code, e.g. upstream_unavailable.")]
State = Annotated[Literal["dead", "expired", "rejected"] | None, typer.Option(help="Jobs that ended so.")]
OlderThan = Annotated[float | None, typer.Option(parser=_age_s, metavar="AGE", help="Ended before: 90s, 15m, 2h, 3d.")]
NewerThan = Annotated[float | None, typer.Option(parser=_age_s, metavar="AGE", help="Ended since.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Position = Annotated[
    Literal["end", "in-place"],
    typer.Option(help="Behind everything in its conversation, or where its age puts it."),
]


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917 - one parameter for each option
    tenant: Tenant = None,
    agent: Agent = None,
    error: ErrorCode = None,
    state: State = None,
    disposition: Annotated[
        Literal["open", "retried", "discarded", "any"], typer.Option(help="What became of them.")
    ] = "open",
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest end first.")] = 50,
    json: Json = False,
) -> None:
    """List dead jobs."""
    wanted = _filter(tenant, agent, error, state, older_than, newer_than, disposition)
    _run(lambda terminal: terminal.list(wanted, limit), tenant=tenant, json=json)


@app.command()
def show(job_id: JobId, tenant: Tenant = None, json: Json = False) -> None:
    """Show everything about one: each run's payload, attempts, errors and traceback, and what it cost."""
    _run(lambda terminal: terminal.show(job_id), tenant=tenant, json=json)


@app.command()
def retry(  # noqa: PLR0913, PLR0917 - one parameter for each option
    job_ids: Annotated[list[str] | None, typer.Argument(help="Ids of the jobs.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All open ones that the filters match.")] = False,
    tenant: Tenant = None,
    agent: Agent = None,
    error: ErrorCode = None,
    state: State = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    position: Position = "end",
    rate: Annotated[float, typer.Option(parser=_rate_per_s, metavar="N/s", help="Jobs per second at most.")] = 10.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which jobs are meant.")] = False,
    json: Json = False,
) -> None:
    """Retry dead jobs: one, several, or with --all every one that the filters match."""
    wanted = _filter(tenant, agent, error, state, older_than, newer_than, "open")
    filtered = any((agent, error, state, older_than, newer_than))
    if bool(job_ids) == all_ or (job_ids and filtered):
        raise typer.BadParameter("give ids of jobs, or --all with or without filters")
    where: Any = position.replace("-", "_")
    if job_ids:
        _run(lambda terminal: terminal.retry_these(job_ids, where, rate, dry_run=dry_run), tenant=tenant, json=json)
    else:
        _run(lambda terminal: terminal.retry_all(wanted, where, rate, dry_run=dry_run), tenant=tenant, json=json)


@app.command()
def edit(
    job_id: JobId,
    message: Annotated[str | None, typer.Option(help="Ask this instead.")] = None,
    agent: Annotated[str | None, typer.Option(help="Ask this agent instead.")] = None,
    metadata: Annotated[str | None, typer.Option(help="Metadata in place of the old (a JSON object).")] = None,
    position: Position = "end",
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Retry one with changes. The books keep what was asked before."""
    if message is None and agent is None and metadata is None:
        raise typer.BadParameter("nothing to change: give --message, --agent or --metadata")
    where: Any = position.replace("-", "_")
    _run(
        lambda terminal: terminal.edit(job_id, where, message=message, agent=agent, metadata=metadata),
        tenant=tenant,
        json=json,
    )


@app.command()
def discard(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of the jobs.")], tenant: Tenant = None, json: Json = False
) -> None:
    """Give up on dead jobs for good. Their rows stay in the books."""
    _run(lambda terminal: terminal.discard(job_ids), tenant=tenant, json=json)


def _filter(
    tenant: str | None,
    agent: str | None,
    error: str | None,
    state: str | None,
    older_than_s: float | None,
    newer_than_s: float | None,
    disposition: str,
) -> "DeadFilter":
    from ops.dead.books import dead_filter  # noqa: PLC0415 - loaded when a command runs

    return dead_filter(
        tenant=tenant,
        agent=agent,
        error_code=error,
        state=state,
        older_than_s=older_than_s,
        newer_than_s=newer_than_s,
        disposition=disposition,
    )


def _run(action: "Callable[[Terminal], Awaitable[int]]", *, tenant: str | None, json: bool) -> None:
    """Exits with the action's code: 1 when a job was refused."""
    from ops.dead.terminal import run  # noqa: PLC0415 - loaded when a command runs

    sys.exit(run(Settings.read(), tenant, action, json=json))
