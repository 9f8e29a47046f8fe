"""No process loads an SDK that it has no key for: its start would take twice as long, and a third more memory."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = "print(sorted({'anthropic', 'openai'} & sys.modules.keys()))"
PROCESSES = "ingress.app, ops.console.app, ops.cli, workers.main, workers.delivery.main"


def printed(program: str) -> list[str]:
    """By an interpreter that has loaded nothing yet."""
    run = [sys.executable, "-c", f"import sys\n{program}"]
    return subprocess.run(run, cwd=ROOT, capture_output=True, check=True, text=True, timeout=300).stdout.splitlines()


def test_no_process_loads_an_sdk_by_itself() -> None:
    assert printed(f"import {PROCESSES}\n{LOADED}") == ["[]"]


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_the_sdk_of_the_key_is_loaded_and_no_other(provider: str) -> None:
    program = f"""
from shared.config import Settings
from workers.models.catalog import open_models
opened = open_models(Settings.read({{"{provider.upper()}_API_KEY": "k"}}))
print(list(opened))
{LOADED}"""
    assert printed(program) == [f"['{provider}']"] * 2
