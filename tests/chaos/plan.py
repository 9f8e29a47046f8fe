"""What will happen, drawn from one seed: who says what, which model calls fail, and where in the load faults strike.

Places of faults are counted in accepted messages, not in seconds, so that a seed means the same on any machine. What
is left to chance on a replay is the interleaving of the processes themselves.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Fate = Literal["fine", "flaky", "doomed", "refused"]
"""What the models do to a job: nothing, fail its first calls, fail all of them, or refuse it for good."""

FLAKY_SHARE = 0.06
DOOMED_SHARE = 0.005
REFUSED_SHARE = 0.005
CALLBACK_SHARE = 0.3
FOR_EVER = 1_000
"""Failures of a doomed job's calls: more than any number of attempts."""

MODEL_FAULTS: Final[Sequence[Mapping[str, Any]]] = (
    {"status": 429, "retry_after_s": 0},
    {"status": 500},
    {"hang": True},
    {"cut_stream": True},
    {"end_early": True},
    {"stall_stream": True},
    {"stream_error": True},
    {"malformed": True},
)
REPLY = "re: {last} | after: {previous}"
CALM_RULE: Final[Mapping[str, Any]] = {"latency_ms": 30, "ttft_ms": 20, "tokens_per_s": 400, "reply": REPLY}
"""How a model answers when nothing is wrong: quickly, in pieces, quoting what it was asked and what came before."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One message to be sent. Its text is like no other: calls in the provider's books are told apart by it."""

    conversation: str
    number: int
    """Its place in its conversation, from 0."""
    fate: Fate
    faults: Sequence[Mapping[str, Any]]
    has_callback: bool

    @property
    def text(self) -> str:
        return f"{self.conversation}#{self.number:05d}"

    @property
    def agent(self) -> str:
        """Odd conversations talk to the agent without history."""
        return "sales" if int(self.conversation[1:]) % 2 else "support"


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    conversations: Sequence[Sequence[Utterance]]
    strikes: Mapping[str, Sequence[int]]
    """Kind of fault → how many messages have been accepted when each one strikes."""

    @property
    def jobs(self) -> int:
        return sum(map(len, self.conversations))

    def rules(self) -> list[Mapping[str, Any]]:
        """The stand-in's behaviour: one rule for each job the models fail, then the one for everybody."""
        troubled = [said for conversation in self.conversations for said in conversation if said.faults]
        return [*({**CALM_RULE, "match": said.text, "faults": list(said.faults)} for said in troubled), CALM_RULE]


def draw(seed: int, *, jobs: int, conversations: int, faults: int, kinds: Sequence[str]) -> Plan:
    """`faults` of each kind, between 5 and 90 % of the load. Without faults the models are well, too."""
    rng = random.Random(seed)  # noqa: S311 - to be replayed, not to be secret
    lengths = [jobs // conversations + (n < jobs % conversations) for n in range(conversations)]
    said = [
        [_utterance(rng, f"c{n:04d}", number, calm=not faults) for number in range(length)]
        for n, length in enumerate(lengths)
    ]
    first, last = jobs // 20, max(jobs // 20 + 1, jobs * 9 // 10)
    strikes = {kind: sorted(rng.randrange(first, last) for _ in range(faults)) for kind in kinds}
    return Plan(seed, said, strikes)


def _utterance(rng: random.Random, conversation: str, number: int, *, calm: bool) -> Utterance:
    fate: Fate = "fine" if calm else _fate(rng.random())
    faults: list[Mapping[str, Any]] = []
    if fate == "flaky":
        faults = [rng.choice(MODEL_FAULTS) for _ in range(rng.randint(1, 2))]
    elif fate == "doomed":
        faults = [{"status": 500, "times": FOR_EVER}]
    elif fate == "refused":
        faults = [{"status": 400, "times": FOR_EVER}]
    return Utterance(conversation, number, fate, faults, rng.random() < CALLBACK_SHARE)


def _fate(drawn: float) -> Fate:
    if drawn < DOOMED_SHARE:
        return "doomed"
    if drawn < DOOMED_SHARE + REFUSED_SHARE:
        return "refused"
    return "flaky" if drawn < DOOMED_SHARE + REFUSED_SHARE + FLAKY_SHARE else "fine"
