"""Packs a prompt to a bound of tokens, as the model that is asked counts them. Pure; called before every model call.

What goes first when there is too much, in this order:

    recalled memories     the least fitting first; at most RECALL_TOKENS of them
    earlier messages      the oldest first, groups whole; at most RECENT_TOKENS of them where something is remembered
    the summary           at most SUMMARY_TOKENS of it
    profile and facts     the oldest first; at most PROFILE_TOKENS
    the newest message    its middle, and never to less than NEWEST_TOKENS
    the system prompt     never
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from agents.api import NOTHING, Message, Prompt, Recalled, Remembered
from workers.context import shown
from workers.ledger import tokens

PROFILE_TOKENS = 400
SUMMARY_TOKENS = 700
RECENT_TOKENS = 3_000
RECALL_TOKENS = 1_500
NEWEST_TOKENS = 1_000
"""Shown of the newest message however long the system prompt is."""

LEAST_SUMMARY_TOKENS = 50
"""Less of a summary than this is not shown."""

_MOST_BYTES_A_CHAR = 4
_SLACK = 2
"""Where texts are joined, their tokens may fall otherwise."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt as it is sent, and what had to be left out of it: earlier messages, part of the newest one."""

    prompt: Prompt
    left_out: int = 0
    cut: bool = False


def fitted(prompt: Prompt, model: str, limit: int) -> Fitted:
    """`prompt` in at most `limit` tokens of `model`, what is remembered now among its messages."""
    if not prompt.remembered and _surely_fits(prompt, model, limit):
        return Fitted(prompt)
    return _Packing(prompt, model, limit).packed()


def groups(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """Neighbours that must stay together, in order."""
    keys = [message.group or f" {place}" for place, message in enumerate(messages)]
    found = groupby(zip(keys, messages, strict=True), key=lambda pair: pair[0])
    return [tuple(message for _, message in some) for _, some in found]


class _Meter:
    """Counts as one model does."""

    def __init__(self, model: str) -> None:
        self._model = model

    def message(self, text: str) -> int:
        return tokens.message(text, self._model)

    def group(self, messages: Sequence[Message]) -> int:
        return sum(self.message(message.content) for message in messages)

    def text(self, text: str) -> int:
        return tokens.count(text, self._model)

    def cut(self, text: str, most: int) -> str:
        return tokens.cut(text, most, self._model)


class _Packing:
    """Of one prompt. `_room`: tokens that are left."""

    def __init__(self, prompt: Prompt, model: str, limit: int) -> None:
        self._prompt, self._meter = prompt, _Meter(model)
        self._room = limit - tokens.frame(model) - (self._meter.message(prompt.system) if prompt.system else 0)

    def packed(self) -> Fitted:
        messages = self._prompt.messages
        *earlier, newest = groups(messages) or [()]
        last = self._newest(newest)
        known = _known(self._prompt.remembered, self._meter, self._room)
        room = self._room - (self._meter.message(shown.block(known)) if known else 0)
        kept, room = self._recent(earlier, room)
        block = _with_recalled(known, self._prompt.remembered.recalled, self._meter, room)
        middle = (Message("user", block),) if block else ()
        prompt = replace(self._prompt, messages=(*kept, *middle, *last), remembered=NOTHING)
        return Fitted(prompt, len(messages) - len(kept) - len(last), last != newest)

    def _newest(self, group: tuple[Message, ...]) -> tuple[Message, ...]:
        """The last group; when it is too long by itself its longest message loses its middle."""
        meter, room = self._meter, max(self._room, NEWEST_TOKENS)
        if (excess := meter.group(group) - room) > 0:
            longest = max(group, key=lambda message: len(message.content))
            most = max(0, meter.text(longest.content) - excess)
            shorter = replace(longest, content=meter.cut(longest.content, most))
            group = tuple(shorter if message is longest else message for message in group)
        self._room = max(0, self._room - meter.group(group))
        return group

    def _recent(self, earlier: Sequence[tuple[Message, ...]], room: int) -> tuple[list[Message], int]:
        """The newest groups that fit, and the room they leave."""
        left = min(room, RECENT_TOKENS) if self._prompt.remembered else room
        kept: list[tuple[Message, ...]] = []
        for group in reversed(earlier):
            if (cost := self._meter.group(group)) > left:
                break
            kept.insert(0, group)
            left -= cost
        while kept and len(kept) < len(earlier) and kept[0][0].role != "user":  # a reply to what is not shown
            kept.pop(0)
        messages = [message for group in kept for message in group]
        return messages, room - self._meter.group(messages)


def _known(remembered: Remembered, meter: _Meter, room: int) -> list[str]:
    """Profile, facts and summary, each within its share and all of them within `room`."""
    frame = meter.message(shown.block([]))
    own = _profile_and_facts(remembered, meter, min(PROFILE_TOKENS, room - frame))
    room -= frame + meter.text("\n".join(own))
    most = min(SUMMARY_TOKENS, room) - meter.text(shown.summary("")) - _SLACK
    if remembered.summary is None or most < LEAST_SUMMARY_TOKENS:
        return own
    text = remembered.summary
    return [*own, shown.summary(text if meter.text(text) <= most else meter.cut(text, most))]


def _profile_and_facts(remembered: Remembered, meter: _Meter, most: int) -> list[str]:
    own = [shown.profile(remembered.profile)] if remembered.profile else []
    if own and meter.text(own[0]) > most:
        return []
    for count in range(len(remembered.facts), 0, -1):
        parts = [*own, shown.facts(remembered.facts[:count])]
        if meter.text("\n".join(parts)) <= most:
            return parts
    return own


def _with_recalled(known: Sequence[str], recalled: Sequence[Recalled], meter: _Meter, room: int) -> str:
    """The block with as much of what is recalled as fits, in the order it was said; empty without anything."""
    most = min(RECALL_TOKENS, room if known else room - meter.message(shown.block([])))
    chosen: list[Recalled] = []
    for each in recalled:
        if (cost := meter.text(shown.said(each)) + 1) <= most:
            chosen.append(each)
            most -= cost
    lines = [shown.said(each) for each in sorted(chosen, key=lambda each: each.said_us)]
    return shown.block([*known, *lines]) if known or lines else ""


def _surely_fits(prompt: Prompt, model: str, limit: int) -> bool:
    """Without counting: no text has more tokens than bytes."""
    texts = [prompt.system, *(message.content for message in prompt.messages)]
    most_bytes = sum(len(text) if text.isascii() else _MOST_BYTES_A_CHAR * len(text) for text in texts)
    return tokens.at_most(most_bytes, len(texts), model) <= limit
