"""`switchboard doctor`: examines, shows a table or JSON, and exits with 1 when something does not work."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.doctor.examination import examine
from ops.doctor.findings import Finding, Level
from shared.config import Settings, unknown_variables

_MARKS = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.FAULT: ("FAULT", "bold red")}


def run(*, json: bool, online: bool) -> int:
    settings, faults = Settings.examine()
    found = asyncio.run(examine(settings, faults, unknown_variables(), online=online))
    if json:
        sys.stdout.write(msgspec.json.encode(report(found)).decode() + "\n")
    else:
        show(found, Console(highlight=False))
    return 1 if counted(found)[Level.FAULT] else 0


def report(found: Sequence[Finding]) -> dict[str, object]:
    return {"object": "doctor.report", "counts": {level: counted(found)[level] for level in Level}, "findings": found}


def show(found: Sequence[Finding], console: Console) -> None:
    """Everything in the order it was looked at, then one line; what to do stands under what is wrong."""
    table = Table("", "check", "finding", box=None, header_style="bold", padding=(0, 1))
    for one in found:
        mark, style = _MARKS[one.level]
        what = Text(one.what)
        if one.mend:
            what.append(f"\n→ {one.mend}", style="cyan")
        table.add_row(Text(mark, style=style), one.check, what)
    console.print(table)
    console.print(", ".join(f"{number} {level}" for level, number in _counts(found)))


def _counts(found: Sequence[Finding]) -> list[tuple[Level, int]]:
    counts = counted(found)
    return [(level, counts[level]) for level in reversed(Level) if counts[level]]


def counted(found: Sequence[Finding]) -> Counter[Level]:
    return Counter(one.level for one in found)
