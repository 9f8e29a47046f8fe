"""The command line: quick help, and what is wrong said in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.dev_process import REPOSITORY, clean_environment


def switchboard(*arguments: str, home: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=REPOSITORY,
        env=clean_environment(home) | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_help_lists_every_process_of_the_procfile(tmp_path: Path) -> None:
    shown = switchboard("--help", home=tmp_path).stdout
    procfile = (REPOSITORY / "Procfile").read_text().splitlines()
    commands = {line.split()[2] for line in procfile} | {
        "dev",
        "chat",
        "dead",
        "jobs",
        "doctor",
        "endpoints",
        "deliveries",
        "alerts",
    }
    assert len(procfile) == 5
    assert [command for command in commands if f" {command} " not in shown] == []


def test_help_loads_neither_a_server_nor_a_model_sdk(tmp_path: Path) -> None:
    heavy = ("uvicorn", "openai", "anthropic", "asyncpg", "redis", "httpx", "starlette")
    code = f"import sys, ops.cli; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "env", "code", "line"),
    [
        (["ingress"], {"REDIS_URL": "redis://127.0.0.1:1/0"}, 2, "Redis cannot be reached"),
        (["ingress"], {"PORT": "x"}, 2, "PORT='x': "),
        (["console"], {"REDIS_URL": "redis://127.0.0.1:1/0"}, 2, "Redis cannot be reached"),
        (["worker"], {"REDIS_URL": "redis://127.0.0.1:1/0"}, 2, "Redis cannot be reached"),
        (["migrate"], {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}, 1, "PostgreSQL: cannot reach Postgres"),
    ],
)
def test_what_is_wrong_is_one_line_without_a_traceback(
    tmp_path: Path, arguments: list[str], env: dict[str, str], code: int, line: str
) -> None:
    run = switchboard(*arguments, home=tmp_path, **env)
    assert run.returncode == code
    assert run.stderr.startswith(f"switchboard: {line}")
    assert run.stderr.count("\n") == 1
    assert "Traceback" not in run.stdout + run.stderr


def test_every_fault_of_the_settings_is_named_at_once(tmp_path: Path) -> None:
    run = switchboard("ingress", home=tmp_path, PORT="x", SWITCHBOARD_TTL_S="0", REDIS_URL="http://secret@host")
    assert [name for name in ("PORT", "SWITCHBOARD_TTL_S", "REDIS_URL") if f"{name}=" not in run.stderr] == []
    assert "secret" not in run.stderr
