"""Continuous integration runs what a developer runs, and the tools find what is wrong."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.reading import REPOSITORY

WORKFLOW = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())


def test_the_workflow_runs_the_same_script_on_two_pythons() -> None:
    job = WORKFLOW["jobs"]["ci"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_script_runs_every_gate_and_ends_with_the_tests() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert re.findall(r"^make ([a-z-]+)", script, re.MULTILINE) == ["check", "deploy-check", "test-pgbouncer", "test"]


def test_actions_are_pinned_to_a_release() -> None:
    used = [step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})", each) for each in used)


def test_the_makefile_stays_small_and_has_the_targets() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert len(makefile.splitlines()) <= 70
    assert {"run", "test", "check", "deploy-check"} <= set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("Dockerfile", "WORKDIR /build", "WORKDIR build", "Dockerfile"),
        ("docker-compose.yml", "restart: unless-stopped", "restarts: unless-stopped", "docker-compose.yml"),
        (".github/workflows/ci.yml", "runs-on:", "runs-at:", ".github/workflows"),
        ("deploy/kubernetes/base/worker.yaml", "terminationGracePeriodSeconds", "gracePeriod", "Kubernetes manifests"),
        ("deploy/postgres/roles.sh", "set -eu", "if set -eu", "deploy/postgres/roles.sh"),
    ],
)
def test_deploy_check_finds(tmp_path: Path, file: str, right: str, wrong: str, said: str) -> None:
    """Each validator, seen red once on a copy."""
    for name in ("deploy", ".ci", ".github"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ("Dockerfile", "docker-compose.yml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    broken = tmp_path / file
    text = broken.read_text()
    assert right in text
    broken.write_text(text.replace(right, wrong, 1))
    run = subprocess.run(["/bin/bash", "deploy/check.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert re.search(rf"^FAULT   {re.escape(said)}", run.stdout, re.MULTILINE), run.stdout
