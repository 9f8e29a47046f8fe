"""The short chaos run: 500 jobs, one fault of each kind. `make chaos` is the long one.

A run that fails prints its seed; `python -m tests.chaos --jobs 500 --conversations 40 --faults 1 --seed S` replays it.
"""

import secrets

from tests.chaos.faults import KINDS
from tests.chaos.run import Options, run


async def test_nothing_is_lost_doubled_or_misbooked_whatever_fails() -> None:
    report = await run(Options(jobs=500, conversations=40, faults=1, seed=secrets.randbelow(1_000_000)))
    assert report.good, report.text
    assert all(f"{kind} 1" in str(report.counts["faults"]) for kind in KINDS), report.text
