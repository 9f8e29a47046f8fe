"""How resources look in a terminal: a table for people, tab-separated lines in a pipe, JSON where asked for."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Resource = Mapping[str, Any]


class Printer:
    """Results, on stdout."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def rows(self, resources: Sequence[Resource], columns: Sequence[str]) -> None:
        if self._json:
            line(_text(resources))
            return
        console = Console(highlight=False)
        cells = [[plain(one.get(column)) for column in columns] for one in resources]
        if not console.is_terminal:
            for row in cells:
                line("\t".join(row))
            return
        table = Table(*columns, box=None, header_style="bold")
        for row in cells:
            table.add_row(*map(escape, row))
        console.print(table)

    def one(self, resource: Resource) -> None:
        text = _text(resource)
        line(text if self._json else msgspec.json.format(text))

    def secret(self, secret: str, resource: Resource, whose: str) -> None:
        """The secret alone on stdout, for a pipe; the rest beside it."""
        if self._json:
            line(_text(resource))
            return
        line(secret)
        note(f"secret of {whose}: keep it now, it is not shown again")


def plain(value: Any) -> str:
    """One line without control characters, which a terminal would obey."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else " " for c in text) or "-"


def line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
