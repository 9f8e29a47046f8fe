"""The scripts with small bounds: 3 heads per tenant and 4 jobs per sweep show in a few steps what 64 and 100 hide.

Also where scripts are changed on purpose (`sabotage.py`). The files stay as they are; loaded scripts are edited.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ops.dead.requeue
import ops.queues
import shared.scripts
import tests.queue.machine.lab
import workers.queue.scripts
from shared.scripts import Script
from tests.queue.machine.lab import lasting_s
from tests.queue.machine.model import BATCH, HEADS, TAKEN_IN

Edit = tuple[str, str]
"""A text that occurs once in each script that has it, and its replacement."""

BOUNDS: tuple[Edit, ...] = (
    ("local HEADS = 64", f"local HEADS = {HEADS}"),
    ("local BATCH = 100", f"local BATCH = {BATCH}"),
    ("local TAKEN_IN = 20", f"local TAKEN_IN = {TAKEN_IN}"),
)
_MODULES = (shared.scripts, workers.queue.scripts, ops.dead.requeue, ops.queues, tests.queue.machine.lab)


@contextmanager
def edited(edits: Sequence[Edit]) -> Iterator[None]:
    """Within, every loaded script reads as edited, and messages may wait for each other for two ticks.

    Raises LookupError for an edit that changes no script.
    """
    scripts = [value for module in _MODULES for value in vars(module).values() if isinstance(value, Script)]
    originals = [(script, script.source) for script in scripts]
    settings = vars(shared.scripts)
    longest_window_s, settings["MAX_MERGE_WINDOW_S"] = settings["MAX_MERGE_WINDOW_S"], lasting_s(2)
    try:
        for old, new in edits:
            if not sum([_edit(script, old, new) for script in scripts]):
                raise LookupError(f"no script has this text any more: {old}")
        yield
    finally:
        settings["MAX_MERGE_WINDOW_S"] = longest_window_s
        for script, source in originals:
            _load(script, source)


def _edit(script: Script, old: str, new: str) -> bool:
    found = script.source.count(old)
    if found > 1:
        raise LookupError(f"{found} times in {script.name}: {old}")
    if found:
        _load(script, script.source.replace(old, new))
    return bool(found)


def _load(script: Script, source: str) -> None:
    script.source = source
    script.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
