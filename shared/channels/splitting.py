"""Cutting a reply into messages of a provider's size: at a paragraph, else a line, a sentence, a word, a character.

Never inside a word that fits a message, and never inside what a reader sees as one character (an emoji of several code
points, a letter with its accents). Nothing but the white space at a cut is lost.
"""

import regex

_CHARACTER = regex.compile(r"\X")
_WHOLE = r"(?![\p{M}\u200d])"  # a mark that follows belongs to the white space, as one character
_BREAKS = tuple(
    regex.compile(pattern + _WHOLE) for pattern in (r"\n\s*\n\s*", r"\n\s*", r"(?<=[.!?…。！？])\s+", r"\s+")
)
"""Where to cut, the best first."""
_LEAST = 0.5
"""A better kind of cut is taken when it leaves a message at least this full."""


def units(text: str) -> int:
    """The length as providers count it: UTF-16 code units, of which most emoji have two or more."""
    return len(text) + sum(character > "\uffff" for character in text)


def split(text: str, limit: int) -> list[str]:
    """Messages of at most `limit` units, none of them empty; no message for a text without words.

    One character of more than `limit` units stands alone and too long, which no real text has.
    """
    pieces, rest = [], text.strip()
    while len(rest) > limit or units(rest) > limit:
        head = _longest(rest, limit)
        end, start = _cut(rest, len(head))
        pieces.append(rest[:end].rstrip())
        rest = rest[start:].lstrip()
    return [*pieces, rest] if rest else pieces


def _longest(text: str, limit: int) -> str:
    """The most whole characters from the start that `limit` holds; at least one."""
    length, used = 0, 0
    for found in _CHARACTER.finditer(text):
        used += units(found[0])
        if used > limit and length:
            break
        length = found.end()
    return text[:length]


def _cut(text: str, most: int) -> tuple[int, int]:
    """Where the message ends and where the next one starts; both at `most` when there is no better place."""
    for least in (int(most * _LEAST), 1):
        for pattern in _BREAKS:
            last = None
            for found in pattern.finditer(text, least, min(len(text), most + 1)):
                if found.start() <= most:
                    last = found
            if last is not None:
                return last.start(), last.end()
    return most, most
