"""The frame every rule works in: a laboratory, a model, the snapshot before the step, and the audit after it.

Rules pick by number (`one_of`), so that what hypothesis draws never depends on what Redis happened to choose.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition

from shared import keys
from shared.wire import Event
from tests.queue.machine.audit import QUEUES, audit
from tests.queue.machine.lab import MAX_DEPTH, Lab
from tests.queue.machine.model import Model, Worker
from tests.queue.machine.snapshot import Snapshot, difference

T = TypeVar("T")

number = st.integers(0, 63)
ticks = st.integers(1, 3)

after_an_admission = precondition(lambda self: self.model.jobs)
after_a_claim = precondition(lambda self: self.model.attempts)
"""Once true, always true: conditions on what Redis chose would make hypothesis draw differently in a replay."""


class Steps(RuleBasedStateMachine):
    """One example: an empty database and an empty model."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        lab.empty()
        self.model = Model(MAX_DEPTH)
        self.before = lab.look()
        self._after: Snapshot | None = None

    @property
    def after(self) -> Snapshot:
        """The database once the step's call was made."""
        if self._after is None:
            self._after = self.lab.look()
        return self._after

    def nothing_changed(self) -> None:
        """For refusals and for stale writers: not one byte of the database."""
        assert difference(self.before, self.after) == {}

    def unchanged(self, job_id: str) -> None:
        """The same, for what belongs to one job."""
        changed = difference(self.before, self.after)
        assert not [key for key in changed if job_id in key]

    def worker(self, pick: int) -> Worker | None:
        """Any worker that was not forgotten yet; its lease may be over."""
        return one_of(list(self.model.workers.values()), pick)

    @invariant()
    def every_promise_is_kept(self) -> None:
        after = self.after
        audit(self.model, self.before, after, self._news())
        self.before, self._after = self._without_tokens(after), None

    def _news(self) -> dict[str, list[Event]]:
        """What readers are given of the jobs that changed, after what they know."""
        jobs = (job for job in self.model.jobs.values() if job.ours and not job.forgotten)
        changed = difference(self.before, self.after).keys()
        known = {job.id: job.seq for job in jobs if job.expected or keys.job(job.id) in changed}
        return self.lab.read_events(known) if known else {}

    def _without_tokens(self, after: Snapshot) -> Snapshot:
        """Workers take the wake tokens between steps: a later step must push its own."""
        tokens = [f"{keys.queue(queue)}:wake" for queue in QUEUES]
        if not after.entries.keys().isdisjoint(tokens):
            self.lab.command("DEL", *tokens)
        kept = {key: entry for key, entry in after.entries.items() if key not in tokens}
        return Snapshot(after.now_ms, kept, after.passed_ms)


def one_of(options: Sequence[T], pick: int) -> T | None:
    return options[pick % len(options)] if options else None


def some_of(options: Sequence[T], picks: Iterable[int]) -> list[T]:
    """Each at most once, in the order of the picks."""
    chosen = [options[pick % len(options)] for pick in picks] if options else []
    return list(dict.fromkeys(chosen))
