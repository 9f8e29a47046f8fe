"""The tables of the memory benchmarks."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.memory.judge import mean
from benchmarks.memory.locomo import ANSWERABLE, CATEGORIES
from benchmarks.memory.quality import Results

GOAL = "to reach, recall on categories 1–4: R@10 ≥ 75, R@500t ≥ 78; R@10 multi-hop > 39.4, open-domain > 38.4"
SCALE_GOAL = "to reach: p95 ≤ 10 ms with 1,000 messages, ≤ 50 ms with 25,000; exact: 1.00"


def show_quality(results: Results, console: Console) -> None:
    """Shares in percent; held out: the conversations that no weight was chosen on."""
    for title, part in (("all conversations", None), ("held out", True), ("tuned on", False)):
        rows = {
            method: [(category, marks) for category, held_out, marks in found if part is None or held_out == part]
            for method, found in results.rows.items()
        }
        if not all(rows.values()):
            continue
        answerable = sum(category in ANSWERABLE for category, _ in next(iter(rows.values())))
        table = Table(title=f"{title}: {answerable} questions of categories 1–4", title_justify="left", title_style="")
        table.add_column("method")
        for column in ("R@5", "R@10", "MRR", "R@500t", "R@1000t"):
            table.add_column(column, justify="right")
        for category in CATEGORIES.values():
            table.add_column(f"R@10 {category}", justify="right")
        for method, found in rows.items():
            whole = mean([marks for category, marks in found if category in ANSWERABLE])
            by_category = [mean([marks for c, marks in found if c == category]).at_10 for category in CATEGORIES]
            shares = (whole.at_5, whole.at_10, None, whole.in_500, whole.in_1000, *by_category)
            cells = [f"{whole.mrr:.3f}" if share is None else f"{share * 100:.1f}" for share in shares]
            table.add_row(method, *cells)
        console.print(table)
    console.print(GOAL)


def show_scale(rows: Sequence[tuple[str, str]], console: Console) -> None:
    table = Table(show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(SCALE_GOAL)
