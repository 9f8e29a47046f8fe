"""`python -m benchmarks [names] [--quick] [--fsync always] [--json FILE]`: measure, print one table."""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.figure import show
from benchmarks.scale import FULL, QUICK
from benchmarks.suite import BENCHMARKS, run

LEGEND = """\
Median (least–greatest) of the rounds, the subjects taking turns. uvloop for both, logs off. Stock arq polls every 10 ms
where jobs are counted (jobs/s, CPU, round trips), and every 500 ms, its default, everywhere else.
turns: accepted through admission, with order (ten messages a conversation), TTL, job record and events on; the job
function answers at once, without Postgres or a model, so that the queue alone is measured.
plain: accepted by stock arq's enqueue_job, run by our worker, with stock arq's pickle and results: like for like."""


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    names = [name for name in BENCHMARKS if name in options.names or not options.names]
    progress = Console(stderr=True)
    where, figures = asyncio.run(
        run(
            names,
            QUICK if options.quick else FULL,
            fsync=options.fsync,
            progress=lambda name: progress.print(f"measuring {name} …", highlight=False),
        )
    )
    console = Console(width=None if sys.stdout.isatty() else 170)
    title = "\n".join(f"{name}: {value}" for name, value in where.items())
    show((figure for rows in figures.values() for figure in rows), title=title, console=console)
    console.print(LEGEND, highlight=False)
    if options.json:
        rows = {name: [figure.as_json() for figure in found] for name, found in figures.items()}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode({**where, "figures": rows})))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The queue beside stock arq.")
    parser.add_argument("names", nargs="*", type=_benchmark, metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="tiny counts: proves that everything runs")
    parser.add_argument("--fsync", choices=("everysec", "always"), default="everysec", help="Valkey's appendfsync")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    return parser


def _benchmark(name: str) -> str:
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"there is no benchmark {name!r}, but {', '.join(BENCHMARKS)}")
    return name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
