"""The command line of a chaos run. Exit code 0: every invariant held; 1: one did not. The seed replays the plan."""

import argparse
import secrets
import sys

import uvloop

from tests.chaos.run import Options, run


def main() -> int:
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=default.jobs)
    parser.add_argument("--conversations", type=int, default=default.conversations)
    parser.add_argument("--faults", type=int, default=default.faults, help="of each kind")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="replays a run's plan")
    parser.add_argument("--calm", type=float, default=0.0, metavar="SECONDS", help="load without any fault")
    parser.add_argument("--workers", type=int, default=default.workers)
    given = parser.parse_args()
    _say(f"seed {given.seed}")
    report = uvloop.run(
        run(Options(given.jobs, given.conversations, given.faults, given.seed, given.calm, given.workers, _say))
    )
    _say(report.text)
    return 0 if report.good else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
