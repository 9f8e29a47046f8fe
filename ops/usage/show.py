"""How a usage report looks on stdout: a table for people, tab-separated lines in a pipe, CSV or JSON on request."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.usage.report import Figures, Report

_COLUMNS = (
    "jobs",
    "calls",
    "failed_calls",
    "lost_calls",
    "estimated_calls",
    "input_tokens",
    "output_tokens",
    "cached_share",
    "cost_usd",
    "cost_per_call_usd",
    "cost_per_job_usd",
    "saved_usd",
)
_HEADINGS = (
    "jobs", "calls", "failed", "lost", "estimated", "input", "output", "cached", "USD", "per call", "per job", "saved",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def json(report: Report) -> None:
    sys.stdout.write(msgspec.json.encode(report.resource()).decode() + "\n")


def as_csv(report: Report) -> str:
    """RFC 4180, a record for each group, the totals left out so that a column adds up to them.

    Names are callers' words: one that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*report.question.by, *Figures().resource()])
    for line in report.lines:
        figures = line.figures.resource().values()
        writer.writerow([*(_harmless(value) for value in line.group.values()), *figures])
    return text.getvalue()


def table(report: Report) -> None:
    """A table; in a pipe tab-separated, with exact headings and without the totals."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in [[*report.question.by, *_COLUMNS], *_rows(report)]:
            sys.stdout.write("\t".join(row) + "\n")
    else:
        shown = Table(box=None, header_style="bold", show_footer=True)
        totals = _cells(report.totals)
        for place, name in enumerate(report.question.by):
            shown.add_column(name, footer="total" if place == 0 else "", overflow="fold")
        for heading, total in zip(_HEADINGS, totals, strict=True):
            shown.add_column(heading, footer=total, justify="right", no_wrap=True)
        for row in _rows(report):
            shown.add_row(*map(escape, row))
        console.print(shown)
    if left := report.groups - sum(line.figures.calls > 0 for line in report.lines):
        sys.stderr.write(f"{left} more groups with calls are not shown\n")


def _rows(report: Report) -> Iterator[list[str]]:
    for line in report.lines:
        yield [*("-" if value is None else _one_line(value) for value in line.group.values()), *_cells(line.figures)]


def _cells(figures: Figures) -> Sequence[str]:
    resource = figures.resource()
    return ["-" if resource[name] is None else str(resource[name]) for name in _COLUMNS]


def _one_line(text: str) -> str:
    """Callers' words, without what would move a terminal's cursor or end a line."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _harmless(text: str | None) -> str | None:
    return f"'{text}" if text is not None and text.startswith(_FORMULA) else text
