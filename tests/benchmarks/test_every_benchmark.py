"""Every benchmark runs, on tiny counts, and finds the figures it is there for. Nothing here looks at how fast."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.figure import Figure, Goal
from benchmarks.scale import QUICK
from benchmarks.subject import Subject
from benchmarks.suite import BENCHMARKS

ROOT = Path(__file__).parents[2]

Found = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Each benchmark's figures, as its own process wrote them; all run at the same time."""
    folder = tmp_path_factory.mktemp("benchmarks")

    async def run_all() -> Found:
        runs = await asyncio.gather(*(_run(name, folder / f"{name}.json") for name in BENCHMARKS))
        return dict(zip(BENCHMARKS, runs, strict=True))

    return asyncio.run(run_all())


async def _run(name: str, file: Path) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", "benchmarks", name, "--quick", "--json", str(file)]
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    figures: list[dict[str, Any]] = msgspec.json.decode(file.read_bytes())["figures"][name]
    for figure in figures:
        assert figure["unit"] in output.decode(), f"the table has no row of {figure['name']}"
    return figures


def values(found: Found, name: str, unit: str, subject: Subject = Subject.TURNS) -> list[float]:
    """Our medians of the rows of this unit."""
    return [row["ours"][0] for row in found[name] if row["unit"] == unit and row["subject"] == subject]


def test_every_benchmark_has_figures_beside_stock_arq(found: Found) -> None:
    for name, figures in found.items():
        assert figures, name
        for figure in figures:
            assert len(figure["ours"]) == QUICK.rounds, figure["name"]
            alone = name in {"accept", "turns", "money", "webhook"}
            assert len(figure["stock"]) == QUICK.rounds or alone, figure["name"]


def test_accepting_a_job_takes_one_round_trip_and_stock_arq_three(found: Found) -> None:
    accept = next(row for row in found["roundtrips"] if row["name"] == "accept a job")

    assert (accept["ours"], accept["stock"]) == ([1.0], [3.0])


def test_a_message_under_every_limit_takes_one_round_trip_too(found: Found) -> None:
    (trips,) = [row for row in found["limits"] if row["unit"] == "round trips"]

    assert (trips["ours"], trips["stock"]) == ([1.0], [1.0])


def test_running_a_job_takes_round_trips_that_were_counted(found: Found) -> None:
    for figure in found["roundtrips"]:
        assert figure["ours"][0] > 0, figure["name"]


@pytest.mark.parametrize("name", ["noop", "sleep50"])
def test_jobs_a_second_of_both_paths_are_rates(found: Found, name: str) -> None:
    rates = [row for row in found[name] if row["unit"] == "jobs/s"]

    assert {row["subject"] for row in rates} == {Subject.TURNS, Subject.PLAIN}
    assert all(row["ours"][0] > 0 and row["stock"][0] > 0 for row in rates)


def test_the_whole_fleet_has_its_slots_full(found: Found) -> None:
    assert values(found, "fleet", "jobs") == [QUICK.fleet_workers * QUICK.fleet_slots]


def test_jobs_of_a_killed_worker_ran_elsewhere_under_either_lease(found: Found) -> None:
    assert len(values(found, "sigkill", "s")) == 2
    assert all(seconds > 0 for seconds in values(found, "sigkill", "s"))


def test_a_worker_asked_to_end_costs_its_jobs_no_try(found: Found) -> None:
    (tries,) = [row for row in found["sigterm"] if row["unit"] == "tries"]

    assert (tries["ours"], tries["stock"]) == ([1.0], [2.0])


def test_a_worker_given_time_leaves_no_job_unfinished(found: Found) -> None:
    assert values(found, "sigterm", "jobs") == [0.0]


def test_the_product_is_measured_beside_its_peers(found: Found) -> None:
    bare, peer_turns = found["accept"][0], found["turns"][0]
    assert (bare["unit"], peer_turns["unit"]) == ("messages/s", "turns/s")
    for figure in (bare, peer_turns, *found["latency"]):
        assert len(figure["stock"]) == QUICK.rounds, figure["name"]


def test_others_get_their_deliveries_while_an_endpoint_hangs(found: Found) -> None:
    """Each of them did, or there would be no figures."""
    assert all(row["ours"][0] > 0 and row["stock"][0] > 0 for row in found["hanging"])


def test_a_turn_costs_every_process_something_and_is_committed(found: Found) -> None:
    costs = {row["name"]: row["ours"][0] for row in found["turns"]}

    assert costs["asked of PostgreSQL for a turn"] > 0  # many turns share one
    assert costs["asked of Redis for a turn"] > 0
    assert {"a queued job in Redis", "a finished job in Redis"} <= set(costs)  # of so few, its own noise is greater


@pytest.mark.parametrize(
    ("goal", "ours", "shortfall"),
    [
        (Goal("value", 5), [4.0, 9.0, 5.0], 0.0),
        (Goal("value", 5), [10.0], 1.0),
        (Goal("ratio", 7, lower_is_better=False), [350.0], 0.5),
        (Goal("ratio", 7, lower_is_better=False), [700.0], 0.0),
        (None, [1.0], None),
    ],
)
def test_a_shortfall_is_what_the_median_misses_its_goal_by(
    goal: Goal | None, ours: list[float], shortfall: float | None
) -> None:
    figure = Figure(name="x", subject=Subject.TURNS, unit="jobs/s", ours=ours, stock=[100.0], goal=goal)

    assert figure.shortfall == shortfall


def test_an_unknown_benchmark_is_refused_by_name() -> None:
    async def refused() -> tuple[int | None, str]:
        argv = [sys.executable, "-m", "benchmarks", "warp_speed"]
        process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        return process.returncode, errors.decode()

    code, errors = asyncio.run(refused())
    assert code == 2
    assert "warp_speed" in errors
    assert "sleep50" in errors


def test_accounting_is_measured_beside_a_bare_round_trip(found: Found) -> None:
    reserve, *others = found["money"]
    assert min(reserve["ours"][0], reserve["stock"][0]) > 0
    assert {row["unit"] for row in others} == {"µs of CPU", "µs a look-up"}
    assert all(row["ours"][0] > 0 for row in others)
