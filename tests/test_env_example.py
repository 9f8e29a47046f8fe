"""`.env.example` says what `shared.config.Settings` says: the same names, the same defaults, a sentence for each."""

import re
from pathlib import Path

import pytest

from shared.config import Settings, environment_name

EXAMPLE = Path(__file__).parent.parent / ".env.example"
ENTRY = re.compile(r"^# (?P<sentence>[^\n]+)\n#(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$", re.MULTILINE)


@pytest.fixture
def documented() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in ENTRY.finditer(EXAMPLE.read_text())}


def test_every_setting_is_documented_and_nothing_else(documented: dict[str, str]) -> None:
    assert sorted(documented) == sorted(environment_name(field) for field in Settings.model_fields)


def test_the_documented_values_are_the_defaults(documented: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in documented:
        monkeypatch.delenv(name, raising=False)
    defaults = Settings.read()
    for name, value in documented.items():
        monkeypatch.setenv(name, value)
    assert Settings.read() == defaults


def test_every_line_is_a_comment_so_that_copying_the_file_changes_nothing() -> None:
    assert [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")] == []


def test_each_entry_stands_under_a_sentence_of_its_own(documented: dict[str, str]) -> None:
    entries = re.findall(r"^#([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text(), re.MULTILINE)
    assert entries == list(documented)
