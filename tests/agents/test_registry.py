"""Agents are found by being there; a broken one is named, and all broken ones at once."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agents import registry
from agents.api import Agent
from shared.errors import ConfigError

GOOD = """
from agents.api import Agent

class Mine(Agent):
    id, label = "{id}", "Mine"
    system_prompt = "Be brief."
"""
Load = Callable[..., Mapping[str, Agent]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """`load({"file": "source"})`: the registry over a package of those files."""
    package = tmp_path / "house_agents"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def load_files(files: dict[str, str], packages: tuple[str, ...] = ("house_agents",)) -> Mapping[str, Agent]:
        for name, source in files.items():
            (package / f"{name}.py").write_text(source)
        return registry.load(packages)

    yield load_files
    for name in [name for name in sys.modules if name.partition(".")[0] == "house_agents"]:
        del sys.modules[name]


def test_shipped_agents_are_found_in_order() -> None:
    assert list(registry.load()) == ["advocate", "sales", "support"]


def test_a_file_dropped_in_is_an_agent(load: Load) -> None:
    agents = load({"mine": GOOD.format(id="mine")}, ("agents", "house_agents"))
    assert list(agents) == ["advocate", "mine", "sales", "support"]
    assert agents["mine"].label == "Mine"


def test_files_with_an_underscore_are_left_alone(load: Load) -> None:
    assert list(load({"mine": GOOD.format(id="mine"), "_shared": "raise RuntimeError"})) == ["mine"]


def test_base_classes_from_other_files_are_not_agents_of_this_one(load: Load) -> None:
    source = "from agents.support import Support\n\nclass Vip(Support):\n    id = 'vip'\n"
    assert list(load({"vip": source})) == ["vip"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import nowhere_to_be_found", "cannot be imported .ModuleNotFoundError"),
        ("def broken(:", "cannot be imported .SyntaxError"),
        ("x = 1", "must define one subclass of Agent, found 0"),
        (GOOD.format(id="a") + "\nclass Other(Mine):\n    id = 'b'\n", "found 2"),
        (GOOD.format(id="Not An Id"), "id must match"),
        (GOOD.format(id="a" * 64), "id must match"),
        (GOOD.replace('id, label = "{id}", "Mine"', 'label = "Mine"'), "id must match"),
        (GOOD.format(id="a").replace("Be brief.", "  "), "system_prompt is missing"),
        (GOOD.format(id="a") + "    models = ('gpt-5.4-mini',)\n", "'gpt-5.4-mini' is not `provider:model`"),
        (GOOD.format(id="a") + "    models = ()\n", "models must be a tuple"),
        (GOOD.format(id="a") + "    models = 'openai:gpt-5.4-mini'\n", "models must be a tuple"),
        (GOOD.format(id="a") + "    history_messages = -1\n", "history_messages must not be negative"),
        (GOOD.format(id="a") + "    max_tokens = 0\n", "max_tokens must be positive"),
        (GOOD.format(id="a") + "    timeout_s = 0\n", "timeout_s must be positive"),
        (GOOD.format(id="a") + "    queue = 'No Such'\n", "queue must match"),
        (GOOD.format(id="a") + "    def answer(self, turn, ctx): ...\n", "answer must be an async function"),
        (GOOD.format(id="a") + "    def __init__(self): raise KeyError('x')\n", "cannot be made .KeyError"),
    ],
)
def test_broken_file_is_named_with_its_fault(load: Load, source: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"house_agents\.mine: .*{fault}"):
        load({"mine": source})


def test_all_faults_are_told_at_once(load: Load) -> None:
    with pytest.raises(ConfigError) as raised:
        load({"one": "x = 1", "three": GOOD.format(id="THREE"), "two": "import nowhere_to_be_found"})
    assert [part.split(":")[0] for part in str(raised.value).split("; ")] == [
        "house_agents.one",
        "house_agents.three",
        "house_agents.two",
    ]


def test_id_used_twice_names_both_files(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"house_agents\.mine: .*'support' is already taken by agents\.support"):
        load({"mine": GOOD.format(id="support")}, ("agents", "house_agents"))


@pytest.mark.parametrize(
    ("package", "fault"), [("no_such_package", "cannot be imported"), ("json.tool", "not a package")]
)
def test_wrong_package_is_named(package: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=f"{package}: {fault}"):
        registry.load((package,))
