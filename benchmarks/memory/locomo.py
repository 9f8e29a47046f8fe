"""The LoCoMo set: ten long conversations of two people, questions about them, and the turns that answer each.

`data/locomo10.json` of github.com/snap-research/LoCoMo (exact case), CC BY-NC 4.0: given by path, never copied.
Categories by their counts: 1 multi-hop 282, 2 temporal 321, 3 open-domain 96, 4 single-hop 841, 5 adversarial 446.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

CATEGORIES = {4: "single-hop", 1: "multi-hop", 2: "temporal", 3: "open-domain", 5: "adversarial"}
ANSWERABLE = (1, 2, 3, 4)
TUNED_ON = 4
"""The weights of recall were chosen on the first four conversations; the others were held out."""

_TURN = re.compile(r"D:?(\d+):(\d+)")
"""`D8:6; D9:17`, `D:11:26` and `D30:05` are all in use."""


@dataclass(frozen=True)
class Turn:
    id: str
    session: int
    speaker: str
    text: str
    said_at: datetime


@dataclass(frozen=True)
class Question:
    text: str
    evidence: frozenset[str]
    category: int


@dataclass(frozen=True)
class Sample:
    """A conversation of many sessions. The first speaker is the user in our terms, the second one the assistant."""

    id: str
    speakers: tuple[str, str]
    turns: list[Turn]
    questions: list[Question]


def read(path: Path) -> list[Sample]:
    """Questions without evidence (four) are left out."""
    return [_sample(given) for given in msgspec.json.decode(path.read_bytes())]


def _sample(given: dict[str, Any]) -> Sample:
    conversation = given["conversation"]
    turns: list[Turn] = []
    session = 1
    while (dated := conversation.get(f"session_{session}_date_time")) is not None:
        said_at = datetime.strptime(dated, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        turns += (_turn(turn, session, said_at) for turn in conversation.get(f"session_{session}", ()))
        session += 1
    known = {turn.id for turn in turns}
    questions = []
    for asked in given["qa"]:
        places = (f"D{int(a)}:{int(b)}" for a, b in _TURN.findall(" ".join(asked.get("evidence", ()))))
        if evidence := known.intersection(places):
            questions.append(Question(asked["question"], frozenset(evidence), asked["category"]))
    return Sample(given["sample_id"], (conversation["speaker_a"], conversation["speaker_b"]), turns, questions)


def _turn(given: dict[str, Any], session: int, said_at: datetime) -> Turn:
    text = given["text"]
    if caption := given.get("blip_caption"):
        text += f" [shares a photo: {caption}]"
    return Turn(given["dia_id"], session, given["speaker"], text, said_at)
