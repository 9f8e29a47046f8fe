"""Recall of the evidence: what share of the turns that answer a question is among those that were found.

R@k: among the first k. R@500t: among those that fit into 500 tokens, best first, one that is too long passed over: what
a prompt pays for. MRR: 1 over the place of the first one that answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.memory.locomo import Question

BUDGETS = (500, 1000)


@dataclass(frozen=True)
class Marks:
    """Of one question, or the mean of many; shares from 0 to 1."""

    at_5: float
    at_10: float
    mrr: float
    in_500: float
    in_1000: float


def marks(question: Question, found: Sequence[str], tokens: Mapping[str, int]) -> Marks:
    """`found`: ids of turns, best first."""
    evidence = question.evidence
    first = next((place for place, turn in enumerate(found, 1) if turn in evidence), None)
    in_500, in_1000 = (len(evidence & _fitting(found, tokens, budget)) / len(evidence) for budget in BUDGETS)
    return Marks(
        len(evidence.intersection(found[:5])) / len(evidence),
        len(evidence.intersection(found[:10])) / len(evidence),
        1 / first if first else 0.0,
        in_500,
        in_1000,
    )


def _fitting(found: Sequence[str], tokens: Mapping[str, int], budget: int) -> set[str]:
    taken, left = set[str](), budget
    for turn in found:
        if tokens[turn] <= left:
            taken.add(turn)
            left -= tokens[turn]
    return taken


def mean(all_marks: Sequence[Marks]) -> Marks:
    def of(field: Callable[[Marks], float]) -> float:
        return sum(map(field, all_marks)) / len(all_marks) if all_marks else 0.0

    return Marks(
        of(lambda m: m.at_5),
        of(lambda m: m.at_10),
        of(lambda m: m.mrr),
        of(lambda m: m.in_500),
        of(lambda m: m.in_1000),
    )
