"""Runs arq's own tests, as arq published them, on a worker class of our choice.

They come in arq's source distribution, which pip fetches once and checks against `sdist.txt`. They run in a process of
their own, under our interpreter and our pytest, with `overlay.py` in place of what they expect of their machine.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CACHE = ROOT / ".pytest_cache" / "arq"
PINNED = HERE / "sdist.txt"
RUN_TIMEOUT_S = 400


@dataclass(frozen=True)
class Outcome:
    """Names of tests, by what became of them, and what pytest said."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    output: str


def fetch() -> Path:
    """The source distribution, from pip or from the cache of an earlier run."""
    pinned = PINNED.read_text()
    (digest,) = re.findall(r"sha256:([0-9a-f]{64})", pinned)
    kept = CACHE / f"{digest}.tar.gz"
    if not kept.is_file() or sha256(kept.read_bytes()).hexdigest() != digest:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            options = ["--no-deps", "--no-binary", "arq", "--require-hashes", "--disable-pip-version-check", "--quiet"]
            command = [sys.executable, "-m", "pip", "download", *options, "-r", str(PINNED), "-d", folder]
            subprocess.run(command, check=True, timeout=RUN_TIMEOUT_S)
            (fetched,) = Path(folder).glob("arq-*.tar.gz")
            fetched.rename(kept)
    return kept


def unpack(sdist: Path, folder: Path) -> None:
    """The tests and their pytest settings; not arq itself, which is the installed one."""
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            _, _, name = member.name.partition("/")
            content = archive.extractfile(member)
            if content is not None and (name == "pyproject.toml" or re.fullmatch(r"tests/\w+\.py", name)):
                (folder / name).parent.mkdir(exist_ok=True)
                with (folder / name).open("wb") as target:
                    shutil.copyfileobj(content, target)


def run(folder: Path, redis_port: int, worker: str, select: Sequence[str] = ("tests",)) -> Outcome:
    """Runs `select` (pytest's arguments) on `worker`, a dotted path. The server at `redis_port` is flushed."""
    report = folder / "report.xml"
    options = ["-p", "overlay", f"--worker={worker}", f"--redis-port={redis_port}", f"--junitxml={report}"]
    options += ["-q", "--tb=short", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    options += ["-o", "filterwarnings=default"]  # it was written for older releases of redis-py and pytest-asyncio
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *select],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])},  # noqa: TID251 - a child's
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
    if not report.is_file():
        raise AssertionError(ran.stdout + ran.stderr)
    outcome = _read(report, ran.stdout + ran.stderr)
    report.unlink()
    return outcome


def _read(report: Path, output: str) -> Outcome:
    names: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        file = (case.get("classname") or "").replace(".", "/") + ".py"
        verdicts = {child.tag for child in case} & {"failure", "error", "skipped"}
        kind = "passed" if not verdicts else "skipped" if verdicts == {"skipped"} else "failed"
        names[kind].add(f"{file}::{case.get('name')}")
    passed = names["passed"] - names["failed"]  # a test can pass and fail in its teardown
    return Outcome(frozenset(passed), frozenset(names["failed"]), frozenset(names["skipped"]), output)
