"""How dead jobs look in a terminal: a table for people, tab-separated lines in a pipe, JSON where it is asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ops.dead.books import DeadDetail, DeadJob, DeadRun
from ops.dead.retry import Retried
from ops.terminal.output import as_json, indented, line, table, when
from shared.jobs import JobError, rfc3339, usd

_COLUMNS = ("job", "tenant", "agent", "state", "error", "run", "attempts", "ended", "disposition")


class Printer:
    """Results, on stdout."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def jobs(self, jobs: Sequence[DeadJob]) -> None:
        if self._json:
            line(as_json([job.resource() for job in jobs]))
        else:
            table(_COLUMNS, map(_cells, jobs))

    def detail(self, detail: DeadDetail) -> None:
        if self._json:
            line(as_json(detail.resource()))
            return
        dead = detail.dead
        self._fields(
            ("job", dead.job_id),
            ("tenant", dead.tenant),
            ("conversation", dead.conversation_id),
            ("user", dead.user_id),
            ("disposition", _became(dead)),
            ("cost", f"${usd(detail.cost_nano_usd)} over all runs"),
        )
        for run in detail.runs:
            self._run(run)

    def retried(self, one: Retried) -> None:
        if self._json:
            line(as_json(one))
        else:
            waits = "next in its conversation" if one.place == 0 else f"behind {one.place} in its conversation"
            note_ = " (it was before)" if one.repeated else ""
            line(f"{one.job_id}\tqueued{note_} as run {one.run}, {waits}")

    def discarded(self, job_id: str) -> None:
        line(as_json({"job_id": job_id, "outcome": "discarded"}) if self._json else f"{job_id}\tdiscarded")

    def _run(self, run: DeadRun) -> None:
        line(f"\nrun {run.run}: {run.state} after {run.attempts} attempts")
        started = rfc3339(run.started_us) if run.started_us else "never"
        self._fields(
            ("agent", run.agent),
            ("accepted", rfc3339(run.created_us)),
            ("started", started),
            ("ended", rfc3339(run.finished_us)),
            ("error", _error(run.error)),
        )
        for error in run.attempt_errors or []:
            line(f"    attempt {error.get('attempt')}: {error.get('code')}: {error.get('message')}")
        for name, value in (("payload", run.payload), ("next run was given", run.retry_payload)):
            if value is not None:
                line(f"  {name}\n{indented(as_json(value, spread=True), 4)}")
        if run.traceback:
            line(f"  traceback\n{indented(run.traceback.rstrip(), 4)}")

    def _fields(self, *fields: tuple[str, str | None]) -> None:
        for name, value in fields:
            if value is not None:
                line(f"  {name:<13} {value}")


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr for several jobs, where stderr is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("retrying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=total < 2 or not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _cells(job: DeadJob) -> list[str]:
    code = job.error.code if job.error else "-"
    cells = (job.job_id, job.tenant, job.agent, job.state, code, str(job.run), str(job.attempts))
    return [*cells, when(job.finished_us), job.disposition]


def _became(dead: DeadJob) -> str:
    if dead.resolved_us is None:
        return dead.disposition
    as_run = f" as run {dead.retry_run} ({dead.retry_position})" if dead.retry_run else ""
    return f"{dead.disposition}{as_run} by {dead.resolved_by} at {rfc3339(dead.resolved_us)}"


def _error(error: JobError | None) -> str | None:
    return None if error is None else f"{error.code}: {error.message}"
