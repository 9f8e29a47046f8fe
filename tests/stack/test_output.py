"""How results of commands look where nobody reads along: a line for each, columns between tabs."""

import json

import pytest

from ops.terminal.output import Printer


def piped(capsys: pytest.CaptureFixture[str], **cells: object) -> list[str]:
    Printer(json=False).rows([cells], list(cells))
    [line] = capsys.readouterr().out.splitlines()
    return line.split("\t")


def test_a_document_within_a_row_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"messages": 2, "redis_keys": 1}
    shown, several, none = piped(capsys, counts=counts, several=[counts, counts], none={})
    assert json.loads(shown) == counts
    assert json.loads(f"[{several}]") == [counts, counts]
    assert none == "{}"


def test_a_cell_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    shown = piped(capsys, text="a\tb\x1b[2J\nc", words=["x", "y"], unknown=None, empty="", inner={"k": "\x9b"})
    assert shown == ["a b [2J c", "x,y", "-", "-", '{"k":" "}']
