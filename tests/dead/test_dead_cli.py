"""`switchboard dead` and `switchboard jobs` as processes, their output in a pipe."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from shared.ids import uuid7
from tests.conftest import Database
from tests.dead.graveyard import bury, kill
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import Deployment, environment_of

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]


@pytest.fixture
def switchboard(deployment: Deployment) -> Run:
    async def run(*arguments: str, **changes: str | None) -> "subprocess.CompletedProcess[str]":
        env = {**environment_of(deployment.settings), **changes}
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ops", *arguments],
            cwd=REPOSITORY,
            env={name: value for name, value in env.items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


async def test_list_is_a_line_a_job_in_a_pipe_and_json_on_request(deployment: Deployment, switchboard: Run) -> None:
    dsn = deployment.settings.database_url
    new, old = await bury(dsn, age_s=5, code="refusal"), await bury(dsn, age_s=50, tenant="other")
    listed = await switchboard("dead", "list")
    assert listed.returncode == 0, listed.stderr
    rows = [line.split("\t") for line in listed.stdout.splitlines()]
    assert [row[:5] for row in rows] == [
        [new, "acme", "support", "dead", "refusal"],
        [old, "other", "support", "dead", "upstream_unavailable"],
    ]
    filtered = await switchboard("dead", "list", "--error", "refusal", "--newer-than", "9999d", "--json")
    (job,) = json.loads(filtered.stdout)
    assert (job["id"], job["disposition"]) == (new, "open")
    assert listed.stderr == filtered.stderr == ""


async def test_show_tells_the_whole_story(deployment: Deployment, switchboard: Run) -> None:
    job_id = await kill(deployment)
    shown = await switchboard("dead", "show", job_id)
    assert shown.returncode == 0, shown.stderr
    for part in (job_id, "run 1: dead after 1 attempts", "attempt 1: upstream_rejected", '"message": "doomed"', "cost"):
        assert part in shown.stdout
    assert json.loads((await switchboard("dead", "show", job_id, "--json")).stdout)["runs"][0]["run"] == 1


async def test_all_that_match_are_retried_at_the_given_pace_and_others_left(
    deployment: Deployment, switchboard: Run
) -> None:
    dsn = deployment.settings.database_url
    jobs = [await bury(dsn) for _ in range(4)]
    broken, other = await bury(dsn, payload={}), await bury(dsn, code="refusal")
    matching = ("dead", "retry", "--all", "--error", "upstream_unavailable")
    dry = await switchboard(*matching, "--dry-run")
    assert sorted(line.split("\t")[0] for line in dry.stdout.splitlines()) == sorted([*jobs, broken])
    assert dry.stderr == "5 jobs would be retried\n"
    assert await deployment.intake.read(jobs[0]) is None
    started_s = time.monotonic()
    done = await switchboard(*matching, "--rate", "5/s")
    assert time.monotonic() - started_s > 0.8
    assert done.returncode == 1
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == jobs
    assert done.stderr.splitlines() == [
        f"{broken}: The payload of this job cannot be read.",
        "4 jobs retried, 1 refused",
    ]
    left = await switchboard("dead", "list")
    assert {line.split("\t")[0] for line in left.stdout.splitlines()} == {broken, other}
    async with deployment.worker():
        for job_id in jobs:
            assert (await deployment.ended(job_id)).state == "succeeded"
    (dead,) = await deployment.rows("dead_jobs", jobs[0])
    assert dead["resolved_by"].startswith("cli:")


async def test_edit_and_discard(deployment: Deployment, switchboard: Run) -> None:
    dsn = deployment.settings.database_url
    edited, discarded = await bury(dsn), await bury(dsn)
    faulty = await switchboard("dead", "edit", edited, "--agent", "nobody", "--message", " ")
    assert (faulty.returncode, faulty.stdout) == (1, "")
    assert "edit/agent: there is no such agent; edit/message: must not be empty" in faulty.stderr
    done = await switchboard("dead", "edit", edited, "--message", "Better?", "--position", "in-place", "--json")
    assert json.loads(done.stdout)["run"] == 2
    async with deployment.worker():
        record = await deployment.ended(edited)
    assert record.reply is not None
    assert "Better?" in record.reply
    gone = await switchboard("dead", "discard", discarded, edited)
    assert (gone.returncode, gone.stdout) == (1, f"{discarded}\tdiscarded\n")
    assert gone.stderr == f"{edited}: The job was retried; there is nothing to discard.\n"


@pytest.mark.parametrize(
    ("arguments", "changes", "line"),
    [
        (["dead", "show", uuid7()], {}, "There is no such dead job."),
        (["dead", "show", "nonsense"], {}, "'nonsense' is not the id of a job"),
        (["dead", "list"], {"SWITCHBOARD_OPS_DATABASE_URL": None}, "this database role sees one tenant at a time"),
        (["jobs", "stats"], {"REDIS_URL": "redis://127.0.0.1:1/0"}, "Redis cannot be reached"),
    ],
)
async def test_what_is_wrong_is_one_line(
    deployment: Deployment, switchboard: Run, arguments: list[str], changes: dict[str, str | None], line: str
) -> None:
    run = await switchboard(*arguments, **changes)
    assert run.returncode in (1, 2)
    assert run.stderr.startswith(f"switchboard: {line}")
    assert (run.stderr.count("\n"), run.stdout) == (1, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry"],
        ["retry", uuid7(), "--all"],
        ["retry", uuid7(), "--agent", "support"],
        ["retry", "--all", "--rate", "fast"],
        ["retry", "--all", "--rate", "0"],
        ["list", "--older-than", "yesterday"],
        ["edit", uuid7()],
    ],
)
async def test_a_command_that_could_mean_two_things_does_nothing(
    deployment: Deployment, switchboard: Run, arguments: list[str]
) -> None:
    job_id = await bury(deployment.settings.database_url)
    run = await switchboard("dead", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert "Traceback" not in run.stderr
    assert await deployment.intake.read(job_id) is None


async def test_one_tenant_can_be_operated_without_the_operators_role(
    deployment: Deployment, switchboard: Run, database: Database
) -> None:
    mine, other = await bury(database.app), await bury(database.app, tenant="other")
    alone: dict[str, str | None] = {"SWITCHBOARD_OPS_DATABASE_URL": None}
    listed = await switchboard("dead", "list", "--tenant", "acme", **alone)
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == [mine]
    refused = await switchboard("dead", "retry", other, "--tenant", "acme", **alone)
    assert (refused.returncode, refused.stderr) == (1, f"{other}: There is no such dead job.\n")
    assert (await switchboard("dead", "retry", mine, "--tenant", "acme", **alone)).returncode == 0


async def test_stats_count_what_waits(deployment: Deployment, switchboard: Run) -> None:
    for n in range(3):
        await deployment.say("waits", conversation=f"c{n}")
    heading, row = (await switchboard("jobs", "stats")).stdout.splitlines()
    shown = dict(zip(heading.split("\t"), row.split("\t"), strict=True))
    assert (shown["queue"], shown["depth"], shown["due"], shown["desired_workers"]) == ("default", "3", "3", "1")
    assert (shown["live_workers"], shown["utilisation"]) == ("0", "-")
    (stats,) = json.loads((await switchboard("jobs", "stats", "--json", SWITCHBOARD_WORKER_CONCURRENCY="2")).stdout)
    assert (stats["slots_per_worker"], stats["desired_workers"]) == (2, 2), "nobody is there to say how many it has"


async def test_every_worker_says_how_many_jobs_it_runs_at_once(deployment: Deployment, switchboard: Run) -> None:
    async with deployment.worker(worker_concurrency=4, queue="quiet-2"):
        async with deployment.worker(worker_concurrency=30), deployment.worker(worker_concurrency=10):
            found = await switchboard("jobs", "stats", "--json", "--queue", "default", "--queue", "quiet-2")
            both, one = json.loads(found.stdout)
        left = json.loads((await switchboard("jobs", "stats", "--json", "--queue", "default")).stdout)[0]
    assert (both["live_workers"], both["slots"], both["slots_per_worker"], both["utilisation"]) == (2, 40, 20, 0.0)
    assert (one["live_workers"], one["slots"]) == (1, 4)
    assert (left["live_workers"], left["slots"], left["utilisation"]) == (0, 0, None)
