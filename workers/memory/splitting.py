"""Cut a long message into parts of at most 150 tokens: between paragraphs, lines, sentences, words, else anywhere."""

import itertools
import re
from collections.abc import Iterator

from workers.ledger import tokens

PART_TOKENS = 150
MOST_PARTS = 100
"""Of one message: 15,000 tokens. What comes after them is not remembered; it stands in the history all the same."""

_BREAKS = tuple(map(re.compile, (r"\n\s*\n", r"\n", r"(?<=[.!?…])\s+|(?<=[。！？])", r"\s+")))

Span = tuple[int, int, int]
"""From and to, in characters, and the tokens in between."""


def parts(body: str) -> list[Span]:
    """Of a message, blanks around them left out; none when there is nothing but blanks."""
    trimmed = (_trimmed(body, span) for span in _joined(_spans(body, 0, len(body), 0)))
    return list(itertools.islice((span for span in trimmed if span[2]), MOST_PARTS))


def _spans(body: str, start: int, end: int, level: int) -> Iterator[Span]:
    """Pieces of at most PART_TOKENS, cut as gently as that can be done."""
    count = tokens.count(body[start:end])
    if count <= PART_TOKENS or end - start == 1:
        yield start, end, count
    elif level == len(_BREAKS):
        middle = (start + end) // 2
        yield from _spans(body, start, middle, level)
        yield from _spans(body, middle, end, level)
    else:
        for piece_start, piece_end in _between(_BREAKS[level], body, start, end):
            yield from _spans(body, piece_start, piece_end, level + 1)


def _between(breaks: re.Pattern[str], body: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for found in breaks.finditer(body, start, end):
        if start < found.end() < end:
            yield start, found.end()
            start = found.end()
    yield start, end


def _joined(spans: Iterator[Span]) -> Iterator[Span]:
    """Neighbours in one part as long as they fit."""
    open_: Span | None = None
    for span in spans:
        if open_ and open_[2] + span[2] <= PART_TOKENS:
            open_ = open_[0], span[1], open_[2] + span[2]
            continue
        if open_:
            yield open_
        open_ = span
    if open_:
        yield open_


def _trimmed(body: str, span: Span) -> Span:
    start, end, count = span
    text = body[start:end]
    inner = text.strip()
    if not inner:
        return start, start, 0
    start += len(text) - len(text.lstrip())
    return start, start + len(inner), max(count, 1)
