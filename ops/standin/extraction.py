"""What the stand-in answers where JSON is asked for: what a user told of themselves, found by a few sentences.

It understands the question that memory asks (`workers.background.facts`): a JSON object with `messages`. To any other
it answers an empty object.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

_NAME = re.compile(r"\bmy name is (\w[\w'-]*)", re.IGNORECASE)
_BRIEF = re.compile(r"\b(?:short|brief|concise) answers?\b", re.IGNORECASE)
_FACTS = (
    (re.compile(r"\bI (?:now )?live in ([^.!?,;]+)", re.IGNORECASE), "home_city", "Lives in {}."),
    (re.compile(r"\bI (?:now )?work (?:at|for) ([^.!?,;]+)", re.IGNORECASE), "employer", "Works for {}."),
    (re.compile(r"\bI(?:'m| am) allergic to ([^.!?,;]+)", re.IGNORECASE), "allergy", "Is allergic to {}."),
    (re.compile(r"\bI (?:like|love|prefer) ([^.!?,;]+)", re.IGNORECASE), "likes", "Likes {}."),
)


class _Message(msgspec.Struct):
    n: int
    by: str
    text: str


class _Question(msgspec.Struct):
    messages: list[_Message]


def extracted(question: str) -> str:
    """JSON."""
    try:
        messages = msgspec.json.decode(question, type=_Question).messages
    except msgspec.MsgspecError:
        return "{}"
    own = [message for message in messages if message.by == "user"]
    answer = {"profile": list(_profile(own)), "facts": list(_facts(own))}
    return msgspec.json.encode(answer).decode()


def _profile(own: list[_Message]) -> Iterator[dict[str, Any]]:
    for message in own:
        if found := _NAME.search(message.text):
            yield {"field": "name", "value": found[1], "sources": [message.n]}
        if _BRIEF.search(message.text):
            yield {"field": "prefers_concise", "value": "true", "sources": [message.n]}


def _facts(own: list[_Message]) -> Iterator[dict[str, Any]]:
    for message in own:
        for pattern, topic, sentence in _FACTS:
            if found := pattern.search(message.text):
                yield {"topic": topic, "text": sentence.format(found[1].strip()), "sources": [message.n]}
