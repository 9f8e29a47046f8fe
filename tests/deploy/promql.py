"""Reads PromQL as far as these tests ask: which metrics an expression selects, by which labels, and what it groups by.

Not a parser: promtool is that (`make deploy-check`). A word this reader cannot place counts as a metric, so that a gap
in it makes a test fail, never pass.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<range>\[[^\]]*\])
      | (?P<offset>offset\s+\d+\w+)
      | (?P<number>\d+(?:\.\d+)?\w*)
      | (?P<word>[a-zA-Z_:][\w:]*)
      | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>])""",
    re.VERBOSE,
)
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "bool", "inf", "nan"})
_AGGREGATES = frozenset({"sum", "max", "min", "avg", "count"})


@dataclass(frozen=True)
class Selector:
    """One `metric{label="value"}`; `matchers` are (label, sign, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()


@dataclass
class Query:
    selectors: list[Selector] = field(default_factory=list)
    groups: list[frozenset[str]] = field(default_factory=list)
    """The labels of each `by (…)`, `on (…)` and so on."""

    @property
    def kept(self) -> frozenset[str]:
        """Labels that a result may have, of an expression that aggregates."""
        return frozenset().union(*self.groups)


def read(expression: str) -> Query:
    """Raises ValueError for a character that PromQL does not have."""
    tokens = list(_tokens(expression))
    query, at = Query(), 0
    while at < len(tokens):
        kind, text = tokens[at]
        if kind == "word" and text in _LISTS:
            end = tokens.index(("sign", ")"), at)
            query.groups.append(frozenset(name for kind, name in tokens[at:end] if kind == "word") - {text})
            at = end
        elif kind == "word" and not _is_call(tokens, at):
            end = _end_of_braces(tokens, at + 1)
            query.selectors.append(Selector(text, tuple(_matchers(tokens[at + 1 : end]))))
            at = end - 1
        at += 1
    return query


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"not PromQL at {expression[at : at + 20]!r}")
        if match.lastgroup != "space":
            yield str(match.lastgroup), match[0]
        at = match.end()


def _is_call(tokens: Sequence[tuple[str, str]], at: int) -> bool:
    """A function, an aggregation or an operator, and no metric."""
    text = tokens[at][1]
    after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
    return text in _WORDS or after == "(" or (text in _AGGREGATES and after in _LISTS)


def _end_of_braces(tokens: Sequence[tuple[str, str]], at: int) -> int:
    if at < len(tokens) and tokens[at][1] == "{":
        return tokens.index(("sign", "}"), at) + 1
    return at


def _matchers(tokens: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    for at, (kind, text) in enumerate(tokens):
        if kind == "string":
            yield tokens[at - 2][1], tokens[at - 1][1], text[1:-1]
