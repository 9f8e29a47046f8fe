"""Alternation: every round measures each subject once, in a turning order, so that the machine's moods hit all."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from benchmarks.subject import Subject

T = TypeVar("T")

EVERY = (Subject.STOCK, Subject.PLAIN, Subject.TURNS)


async def alternate(
    rounds: int, measure: Callable[[Subject], Awaitable[T]], subjects: Sequence[Subject] = EVERY
) -> dict[Subject, list[T]]:
    """What `measure(subject)` returned, per subject, one per round."""
    samples: dict[Subject, list[T]] = {subject: [] for subject in subjects}
    for turn in range(rounds):
        shift = turn % len(subjects)
        for subject in (*subjects[shift:], *subjects[:shift]):
            samples[subject].append(await measure(subject))
    return samples
