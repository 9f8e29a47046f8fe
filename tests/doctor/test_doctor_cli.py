"""`switchboard doctor` as a person and a program see it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from shared.config import Settings
from tests.stack.dev_process import REPOSITORY, clean_environment
from tests.turn.deployment import environment_of


def doctor(home: Path, settings: Settings, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    given = environment_of(settings)
    inherited = dict(os.environ)  # noqa: TID251 - to tell ours from what was there
    ours = {name: value for name, value in given.items() if inherited.get(name) != value}
    return subprocess.run(
        [sys.executable, "-m", "ops", "doctor", *arguments],
        cwd=REPOSITORY,
        env=clean_environment(home) | ours | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_good_order_is_exit_code_0_and_a_report_for_programs(tmp_path: Path, settings: Settings) -> None:
    run = doctor(tmp_path, settings, "--json")
    report = json.loads(run.stdout)
    assert (run.returncode, run.stderr) == (0, "")
    assert report["object"] == "doctor.report"
    assert report["counts"]["fault"] == 0
    assert {one["check"] for one in report["findings"]} >= {"redis.version", "postgres.migrations", "clocks"}


def test_a_fault_is_exit_code_1_and_says_how_to_mend_it(tmp_path: Path, settings: Settings) -> None:
    wrong = {"SWITCHBOARD_TTL_S": "0", "REDIS_URL": "redis://:canary-password@127.0.0.1:1/0", "COLUMNS": "200"}
    run = doctor(tmp_path, settings, **wrong)
    assert run.returncode == 1
    assert "SWITCHBOARD_TTL_S='0' must be a whole number from 1 to 31622400" in run.stdout
    assert "→ start it, or mend REDIS_URL" in run.stdout
    assert "canary" not in run.stdout + run.stderr


def test_what_depends_on_a_broken_setting_is_not_looked_at(tmp_path: Path, settings: Settings) -> None:
    findings = json.loads(doctor(tmp_path, settings, "--json", DATABASE_URL="nonsense").stdout)["findings"]
    by_check = {one["check"]: one for one in findings}
    assert by_check["postgres.version"]["what"] == "not looked at: DATABASE_URL must be mended first"
    assert by_check["redis.writes"]["level"] == "ok"
