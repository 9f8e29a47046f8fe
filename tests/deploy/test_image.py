"""The image: what hadolint cannot know. It was not built here; its wheel is."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deploy.reading import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]


@pytest.fixture(scope="module")
def copied() -> list[str]:
    """What the first stage copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", STAGES[0], re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, copied: list[str]) -> zipfile.ZipFile:
    """Built as the Dockerfile does, from what the Dockerfile copies."""
    context = tmp_path_factory.mktemp("context")
    for source in copied:
        found = REPOSITORY / source
        if found.is_dir():
            shutil.copytree(found, context / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(found, context)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "wheels", "."]
    subprocess.run([sys.executable, "-m", "pip", *build], cwd=context, check=True, capture_output=True)
    (path,) = (context / "wheels").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_has_every_file_of_every_package(wheel: zipfile.ZipFile) -> None:
    packages = ["sql", "shared", "agents", "ingress", "workers", "ops"]
    files = [path for package in packages for path in (REPOSITORY / package).rglob("*") if path.is_file()]
    there = {str(path.relative_to(REPOSITORY)) for path in files if "__pycache__" not in path.parts}
    assert len(there) > 100
    assert sorted(there - set(wheel.namelist())) == []


def test_the_build_context_is_what_is_copied_and_nothing_else(copied: list[str]) -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied)


def test_the_last_stage_is_small_unprivileged_and_stoppable() -> None:
    last = STAGES[-1]
    assert last.startswith("python:3.13-slim")
    assert "RUN" not in last, "nothing is installed in it: no compiler, no package lists"
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["switchboard"]' in last, "the exec form: signals reach our process, not a shell"
    assert "HEALTHCHECK" not in DOCKERFILE, "each process has its own: compose and Kubernetes give it"
    assert "SWITCHBOARD_HOST=0.0.0.0" in last


def test_dependencies_are_installed_by_hash_and_never_compiled() -> None:
    installs = [line for line in re.findall(r"install .*", STAGES[0]) if "-r " in line]
    assert len(installs) == 2
    assert all("--require-hashes --only-binary=:all:" in line for line in installs)


def test_what_builds_the_wheel_is_what_the_tests_use() -> None:
    def pin(path: Path) -> tuple[str, list[str]]:
        match = re.search(r"^(setuptools==\S+) \\\n((?: +--hash=\S+(?: \\)?\n)+)", path.read_text(), re.MULTILINE)
        assert match
        return match[1], re.findall(r"--hash=\S+", match[2])

    assert pin(REPOSITORY / "deploy" / "requirements-build.txt") == pin(REPOSITORY / "requirements-dev.txt")
