"""How results look: a table for people, tab-separated lines in a pipe, JSON where asked for. Remarks go to stderr."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.jobs import rfc3339

Resource = Mapping[str, Any]


class Printer:
    """Resources as the HTTP API shows them, on stdout."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def rows(self, resources: Sequence[Resource], columns: Sequence[str]) -> None:
        if self._json:
            line(as_json(resources))
        else:
            table(columns, [[plain(one.get(column)) for column in columns] for one in resources])

    def one(self, resource: Resource) -> None:
        line(as_json(resource, spread=not self._json))

    def secret(self, secret: str, resource: Resource, whose: str) -> None:
        """The secret alone on stdout, for a pipe; the rest beside it."""
        if self._json:
            line(as_json(resource))
            return
        line(secret)
        note(f"secret of {whose}: keep it now, it is not shown again")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Cells are shown as they are: callers' words must have gone through `plain`."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            line("\t".join(row))
        return
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def plain(value: Any) -> str:
    """One line without control characters, which a terminal would obey; a document as JSON."""
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    return "".join(c if c.isprintable() else " " for c in text) or "-"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return as_json(value)
    return "" if value is None else str(value)


def when(unix_us: int) -> str:
    return rfc3339(unix_us)[:19] + "Z"


def as_json(value: Any, *, spread: bool = False) -> str:
    """On one line, or spread over several for people."""
    text = msgspec.json.encode(value).decode()
    return msgspec.json.format(text) if spread else text


def indented(text: str, spaces: int) -> str:
    return "\n".join(f"{' ' * spaces}{line}" for line in text.splitlines())


def line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A remark for whoever looks on, on stderr."""
    sys.stderr.write(f"{text}\n")
