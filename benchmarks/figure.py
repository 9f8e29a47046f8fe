"""A figure: what was measured, beside stock arq's in the same run, and what is to be reached."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks.subject import Subject


@dataclass(frozen=True)
class Goal:
    """`ratio`: our median over stock arq's; `value`: our median itself."""

    kind: Literal["ratio", "value"]
    limit: float
    lower_is_better: bool = True

    def __str__(self) -> str:
        sign = "≤" if self.lower_is_better else "≥"
        return f"{sign} {self.limit:g}{' ×' if self.kind == 'ratio' else ''}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row. Samples are one per round, in order."""

    name: str
    subject: Subject
    unit: str
    ours: Sequence[float]
    stock: Sequence[float] = ()
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Our median over stock arq's."""
        if not self.stock or not (stock := statistics.median(self.stock)):
            return None
        return statistics.median(self.ours) / stock

    @property
    def shortfall(self) -> float | None:
        """How far the goal is missed, as a share of it (of 1 for a goal of 0); 0 when reached, None without a goal."""
        if self.goal is None:
            return None
        reached = self.ratio if self.goal.kind == "ratio" else statistics.median(self.ours)
        if reached is None:
            return None
        missing = reached - self.goal.limit if self.goal.lower_is_better else self.goal.limit - reached
        return max(0.0, missing / (self.goal.limit or 1))

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "shortfall": self.shortfall}


def show(figures: Iterable[Figure], *, title: str, console: Console) -> None:
    """The one table, and the notes under it."""
    figures = list(figures)
    table = Table(title=title, title_justify="left", title_style="", show_lines=False)
    for column in ("figure", "our path", "unit"):
        table.add_column(column)
    for column in ("stock arq", "ours", "ours / stock", "to reach", "reached"):
        table.add_column(column, justify="right", no_wrap=True)
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
        goal = "" if figure.goal is None else str(figure.goal)
        cells = (spread(figure.stock), spread(figure.ours), ratio, goal, _verdict(figure.shortfall))
        table.add_row(figure.name, figure.subject.value, figure.unit, *cells)
    console.print(table)
    for figure in figures:
        if figure.note:
            console.print(f"{figure.name}: {figure.note}", highlight=False)


def spread(samples: Sequence[float]) -> str:
    """Median, and least to greatest when there are several."""
    if not samples:
        return ""
    middle = number(statistics.median(samples))
    return middle if len(samples) == 1 else f"{middle} ({number(min(samples))}–{number(max(samples))})"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(shortfall: float | None) -> str:
    if shortfall is None:
        return ""
    return "yes" if shortfall == 0 else f"short by {shortfall:.0%}"
