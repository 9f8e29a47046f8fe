"""How dead jobs look in a terminal: a table for people, tab-separated lines in a pipe, JSON where it is asked for."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ops.dead.books import DeadDetail, DeadJob, DeadRun
from ops.dead.retry import Retried
from shared.jobs import JobError, rfc3339, usd

_COLUMNS = ("job", "tenant", "agent", "state", "error", "run", "attempts", "ended", "disposition")


class Printer:
    """Results, on stdout."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._console = Console(highlight=False, soft_wrap=True)

    def jobs(self, jobs: Sequence[DeadJob]) -> None:
        if self._json:
            self._line(_json([job.resource() for job in jobs]))
        elif self._console.is_terminal:
            table = Table(*_COLUMNS, box=None, header_style="bold")
            for job in jobs:
                table.add_row(*map(escape, _cells(job)))
            Console(highlight=False).print(table)
        else:
            for job in jobs:
                self._line("\t".join(_cells(job)))

    def detail(self, detail: DeadDetail) -> None:
        if self._json:
            self._line(_json(detail.resource()))
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
            self._line(_json(one))
        else:
            waits = "next in its conversation" if one.place == 0 else f"behind {one.place} in its conversation"
            note_ = " (it was before)" if one.repeated else ""
            self._line(f"{one.job_id}\tqueued{note_} as run {one.run}, {waits}")

    def discarded(self, job_id: str) -> None:
        self._line(_json({"job_id": job_id, "outcome": "discarded"}) if self._json else f"{job_id}\tdiscarded")

    def _run(self, run: DeadRun) -> None:
        self._line(f"\nrun {run.run}: {run.state} after {run.attempts} attempts")
        started = rfc3339(run.started_us) if run.started_us else "never"
        self._fields(
            ("agent", run.agent),
            ("accepted", rfc3339(run.created_us)),
            ("started", started),
            ("ended", rfc3339(run.finished_us)),
            ("error", _error(run.error)),
        )
        for error in run.attempt_errors or []:
            self._line(f"    attempt {error.get('attempt')}: {error.get('code')}: {error.get('message')}")
        for name, value in (("payload", run.payload), ("next run was given", run.retry_payload)):
            if value is not None:
                self._line(f"  {name}\n{_indented(msgspec.json.format(_json(value)))}")
        if run.traceback:
            self._line(f"  traceback\n{_indented(run.traceback.rstrip())}")

    def _fields(self, *fields: tuple[str, str | None]) -> None:
        for name, value in fields:
            if value is not None:
                self._line(f"  {name:<13} {value}")

    def _line(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A remark for whoever looks on, on stderr."""
    sys.stderr.write(f"{text}\n")


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
    return [*cells, rfc3339(job.finished_us)[:19] + "Z", job.disposition]


def _became(dead: DeadJob) -> str:
    if dead.resolved_us is None:
        return dead.disposition
    as_run = f" as run {dead.retry_run} ({dead.retry_position})" if dead.retry_run else ""
    return f"{dead.disposition}{as_run} by {dead.resolved_by} at {rfc3339(dead.resolved_us)}"


def _error(error: JobError | None) -> str | None:
    return None if error is None else f"{error.code}: {error.message}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
