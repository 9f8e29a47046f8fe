"""What a delivery process says of memory's tasks: nothing that names somebody, and nothing of what was said."""

import pytest

from shared.telemetry import context
from tests.conftest import Eventually
from tests.context.conftest import Remembering
from tests.telemetry.conftest import Lines
from tests.telemetry.conftest import lines as lines  # noqa: PLC0414 - a fixture, used by its name
from workers.background import runner


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_S", 0.02)


async def test_a_tasks_line_names_nobody(deployment: Remembering, eventually: Eventually, lines: Lines) -> None:
    """A conversation that somebody named may be called by an e-mail address."""
    chosen = "ada@example.com"
    await deployment.memory_settings(facts=False)
    async with deployment.worker():
        await deployment.talk(*(f"penguin {n}" for n in range(11)), conversation=chosen)
    await deployment.take_in()
    async with deployment.memory():
        await eventually(lambda: lines.all("memory.task"))
    assert {line["conversation_id"] for line in lines.all("memory.task")} == {context.conversation(chosen)}
    assert {line["conversation_id"] for line in lines.all("job")} == {context.conversation(chosen)}
    assert "example.com" not in lines.text
    assert "penguin" not in lines.text
