"""Counts and cuts text with o200k_base, whatever the model is called.

The encoding is the one the ledger counts with; a stand-in that counted differently could not check it. Anthropic's
own tokenizer is not public: here it counts as o200k_base does.
"""

import codecs
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import cycle, islice
from typing import NamedTuple

from workers.ledger import tokens

_ENCODING = "o200k_base"
_FILLER = (" and", " then", " some", " more")
"""One token each after any text: the encoding never joins a space with what stands before it, when a letter follows."""


_CACHED_CHARS = 4_000
"""Longer replies are split anew each time, to bound the cache."""


class Piece(NamedTuple):
    """Text that is streamed at once. More than one token where a character is made of several."""

    text: str
    tokens: int


def load() -> None:
    """Read the ranks now, so that the first caller does not wait for them."""
    tokens.encoding(_ENCODING)


def count(text: str) -> int:
    return tokens.count(text)


def count_chat(texts: Iterable[str]) -> int:
    """Input tokens of chat messages (the system prompt is one), framing included."""
    return tokens.count_chat(texts)


def split(text: str, limit: int | None = None) -> tuple[Piece, ...]:
    """The text in pieces of one token, cut after `limit` tokens.

    A character that the cut leaves incomplete is not shown; its tokens are counted all the same, as generated ones.
    """
    return _split_cached(text, limit) if len(text) <= _CACHED_CHARS else _split(text, limit)


def pad(text: str, size_tokens: int) -> str:
    """The text, with filler words up to `size_tokens` tokens where it is shorter."""
    return text + "".join(islice(cycle(_FILLER), max(0, size_tokens - count(text))))


def _split(text: str, limit: int | None) -> tuple[Piece, ...]:
    encoding = tokens.encoding(_ENCODING)
    ids = encoding.encode_ordinary(text)[:limit]
    return tuple(_pieces(encoding.decode_tokens_bytes(ids)))


_split_cached = lru_cache(maxsize=512)(_split)


def _pieces(token_bytes: Iterable[bytes]) -> Iterator[Piece]:
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    held = 0
    for token in token_bytes:
        held += 1
        if text := decoder.decode(token):
            yield Piece(text, held)
            held = 0
    if held:
        yield Piece("", held)
