"""The queue's state machine: every way the scripts are called, in any order, against a real server and a model.

The same examples are played in every run, and a failing one is shown as it is: making it shorter takes minutes.
`pytest tests/queue/machine --hypothesis-profile=thorough` plays many more, new ones each time, and shortens them.
"""

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.queue.machine.intake_rules import IntakeRules
from tests.queue.machine.lab import Lab
from tests.queue.machine.operator_rules import OperatorRules

_HOW = settings(stateful_step_count=50, deadline=None, report_multiple_bugs=False, print_blob=True)
THOROUGH = _HOW if settings.get_current_profile_name().startswith("thorough") else None
"""As many examples as the profile says; None under another profile."""


class QueueMachine(IntakeRules, OperatorRules):
    """Rules are steps; invariants are in `audit`."""


def routine(examples: int) -> settings:
    """The same examples every time."""
    return settings(_HOW, max_examples=examples, derandomize=True, database=None, phases=[Phase.generate])


def explore(redis_url: str, how: settings) -> None:
    """Plays examples until one breaks a promise, and raises its AssertionError."""
    lab = Lab(redis_url)
    try:
        run_state_machine_as_test(lambda: QueueMachine(lab), settings=how)  # type: ignore[arg-type]  # any factory
    finally:
        lab.close()
