"""What the stand-in answers: composed from the conversation it was sent, so that memory and order can be seen.

The reply quotes the last user message, says how many user messages it was sent and quotes the one before. A rule may
fix the reply, its length or tool calls instead. However it came about, `usage` is what the caller is billed.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from ops.standin.ask import Ask
from ops.standin.behaviour import Finish, Rule, ToolCall
from ops.standin.extraction import extracted
from ops.standin.tokenizer import Piece, count, pad, split

_QUOTED_CHARS = 1_000
_PLACEHOLDER = re.compile(r"\{(last|previous|count|system|model)\}")
_UNBOUNDED = 1 << 62
_REFUSAL = "I can't help with that."

Ending = Finish | Literal["tool_calls"]


class Usage(NamedTuple):
    """Input is the total, cached and cache-written tokens included; output includes reasoning."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A run of output: text, a refusal, or one tool call whose pieces are its JSON arguments."""

    kind: Literal["text", "refusal", "tool"]
    pieces: tuple[Piece, ...]
    name: str = ""
    call_id: str = ""
    head_tokens: int = 0
    """Tokens generated before the first piece: the name of a tool."""

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> int:
        return self.head_tokens + sum(piece.tokens for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    parts: tuple[Part, ...]
    finish: Ending
    usage: Usage


def compose(ask: Ask, rule: Rule, finish: Finish | None) -> Answer:
    """The answer to `ask` under `rule`; `finish` is how a fault makes it end, whatever the text.

    Reasoning is spent first: where it fills `max_tokens` the reply is empty and ends `length`, as a provider's does.
    """
    room = _UNBOUNDED if ask.max_tokens is None else ask.max_tokens
    reasoning = min(rule.reasoning_tokens, room)
    if calls := rule.tool_calls if ask.wants_tools and ask.tool_result is None else []:
        parts, whole = _tool_parts(calls, room - reasoning)
    else:
        parts, whole = _text_parts(ask, rule, finish, room - reasoning)
    natural: Ending = "length" if not whole else "tool_calls" if calls else "stop"
    return Answer(parts, finish or natural, _usage(ask, rule, reasoning, sum(part.tokens for part in parts)))


def _usage(ask: Ask, rule: Rule, reasoning: int, shown: int) -> Usage:
    if rule.billed is not None:
        return Usage(*rule.billed)
    cached = min(rule.cached_tokens, ask.input_tokens)
    written = min(rule.cache_write_tokens, ask.input_tokens - cached)
    return Usage(ask.input_tokens, reasoning + shown, cached, written, reasoning)


def _text_parts(ask: Ask, rule: Rule, finish: Finish | None, room: int) -> tuple[tuple[Part, ...], bool]:
    """The parts, and whether all of the text had room."""
    text = _REFUSAL if finish == "refusal" else _reply(ask, rule)
    if rule.output_tokens is not None:
        text = pad(text, rule.output_tokens)
    pieces = split(text, rule.output_tokens)
    whole = sum(piece.tokens for piece in pieces) <= room
    if not whole:
        pieces = split(text, room)
    return (Part("refusal" if finish == "refusal" else "text", pieces),) if pieces else (), whole


def _tool_parts(calls: list[ToolCall], room: int) -> tuple[tuple[Part, ...], bool]:
    """A call that does not fit is left out: cut arguments would not be JSON."""
    parts: list[Part] = []
    for call in calls:
        part = _tool_part(call)
        if (room := room - part.tokens) < 0:
            return tuple(parts), False
        parts.append(part)
    return tuple(parts), True


def _tool_part(call: ToolCall) -> Part:
    arguments = call.arguments if isinstance(call.arguments, str) else msgspec.json.encode(call.arguments).decode()
    return Part("tool", split(arguments), call.name, secrets.token_hex(12), count(call.name))


def _reply(ask: Ask, rule: Rule) -> str:
    if rule.reply is not None:
        return _filled(rule.reply, ask) if "{" in rule.reply else rule.reply
    if ask.wants_json:
        return extracted(ask.last_user_text)
    if (result := ask.tool_result) is not None:
        return f"The tool answered: “{_quoted(result)}”. {_account(ask.user_texts)}"
    return _account(ask.user_texts)


def _account(user_texts: list[str]) -> str:
    if not user_texts:
        return "This conversation has no user message."
    said = f"You said: “{_quoted(user_texts[-1])}”."
    if len(user_texts) == 1:
        return f"{said} This conversation has 1 user message."
    before = f"Before that you said: “{_quoted(user_texts[-2])}”."
    return f"{said} This conversation has {len(user_texts)} user messages. {before}"


def _quoted(text: str) -> str:
    return text if len(text) <= _QUOTED_CHARS else text[:_QUOTED_CHARS] + "…"


def _filled(template: str, ask: Ask) -> str:
    """One pass over the template: braces in what a user said stay as they are."""
    texts = ask.user_texts
    values = {
        "last": texts[-1] if texts else "",
        "previous": texts[-2] if len(texts) > 1 else "",
        "count": str(len(texts)),
        "system": ask.system,
        "model": ask.model,
    }
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
