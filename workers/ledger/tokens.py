"""Count tokens offline: OpenAI's encodings exactly, Claude's by a measured rule.

Called before a model call (what to reserve), after a call that was lost (what to book), and by the stand-in model
server. The merge ranks are files of this package; nothing here touches the network or writes a file, and no text
makes a count fail. `load()` at start-up pays what the first count would otherwise pay.
"""

import hashlib
from binascii import a2b_base64
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import tiktoken

from agents.api import Prompt
from shared.errors import ConfigError

RANKS = Path(__file__).with_name("ranks")

_FRAME_PER_MESSAGE = 4
"""Three tokens around each chat message and one for its role (OpenAI's cookbook, "how to count tokens")."""
_FRAME_PER_PROMPT = 3
"""Every reply is primed with `<|start|>assistant<|message|>`."""

_FRAME_MARGIN = 16
"""With a fiftieth of the text: what a provider may add to a prompt that we do not know of, or count another way."""

_CACHED_CHARS = range(200, 8_000)
"""Shorter texts are counted faster than they are looked up; longer ones would make the cache large."""
_SLICE_CHARS = 100_000
"""tiktoken's regex engine gives up on a run of spaces near 1,000,000 characters, with a panic that is no `Exception`.
Slices this long are far from that, take 20 ms at worst and add a token or two per cut."""


_CUT = "\n[… part of this text is left out …]\n"
_MOST_CHARS_A_TOKEN = 24
"""Of a text that is to be cut, so much for each token is looked at; a run of blanks has more, and is cut shorter."""


class _Encoding(NamedTuple):
    """What makes an encoding, besides its ranks; `tiktoken_ext.openai_public` holds the originals."""

    ranks_file: str
    """SHA-1 of the address tiktoken downloads it from."""
    ranks_sha256: str
    pattern: str
    special_tokens: dict[str, int]


SHIPPED = {
    "o200k_base": _Encoding(
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(
            [
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            ]
        ),
        {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    "cl100k_base": _Encoding(
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
}


def load(*models: str) -> None:
    """Check all ranks, and build the encodings of these models and of most others.

    That of any other is built when it first counts: a fifth of a second, in which its process does nothing else. Raises
    ConfigError when a rank file is missing or altered.
    """
    for facts in SHIPPED.values():
        _content(facts)
    for name in {encoding_name(model) for model in ("", *models)}:
        encoding(name)


def count(text: str, model: str = "") -> int:
    """Tokens of `text` in `model`: exact for OpenAI's models, the expected number for Claude, o200k_base for others."""
    tokens = _exact(text, model)
    return _expected_by_claude(tokens) if _is_claude(model) else tokens


def beginning(text: str, model: str, limit: int) -> str:
    """The beginning of `text` that has at most `limit` tokens in the model's encoding; a character is never split."""
    if len(text) * 4 <= limit:  # no character has more bytes, no token fewer than one
        return text
    shipped = encoding(encoding_name(model))
    ids: list[int] = []
    for start in range(0, len(text), _SLICE_CHARS):
        ids += shipped.encode_ordinary(text[start : start + _SLICE_CHARS])
        if len(ids) > limit:
            return shipped.decode_bytes(ids[:limit]).decode(errors="ignore")
    return text


def count_chat(texts: Iterable[str], model: str = "") -> int:
    """Like `count`, for chat messages (the system prompt is one), framing included."""
    tokens = _exact_chat(texts, model)
    return _expected_by_claude(tokens) if _is_claude(model) else tokens


def message(text: str, model: str = "") -> int:
    """Tokens that one more message of a chat adds."""
    tokens = _FRAME_PER_MESSAGE + _exact(text, model)
    return _expected_by_claude(tokens) if _is_claude(model) else tokens


def frame(model: str = "") -> int:
    """Tokens of a chat before its first message."""
    return _expected_by_claude(_FRAME_PER_PROMPT) if _is_claude(model) else _FRAME_PER_PROMPT


def at_most(utf8_bytes: int, messages: int, model: str = "") -> int:
    """No chat of so many bytes in so many messages has more tokens."""
    tokens = _FRAME_PER_PROMPT + messages * _FRAME_PER_MESSAGE + utf8_bytes
    return _expected_by_claude(tokens) if _is_claude(model) else tokens


def cut(text: str, most: int, model: str = "") -> str:
    """`text` in at most `most` tokens: its beginning and its end, and between them a line that says so."""
    whole = count(text, model)
    if whole <= most:
        return text
    name = encoding_name(model)
    room = (2 * most // 3 if _is_claude(model) else most) - len(encoding(name).encode_ordinary(_CUT))
    if room <= 1:
        return ""
    head, tail = (room + 1) // 2, room // 2
    while True:
        shorter = _head(text, head, name) + _CUT + _tail(text, tail, name)
        excess = count(shorter, model) - most
        if excess <= 0 or head + tail == 0:
            return shorter
        head, tail = max(0, head - excess), max(0, tail - excess)  # tokens fall otherwise where texts meet


def _head(text: str, most: int, name: str) -> str:
    """Half a character at the cut goes with the rest."""
    encode, decode = encoding(name).encode_ordinary, encoding(name).decode
    return decode(encode(text[: _MOST_CHARS_A_TOKEN * most])[:most]).rstrip("\ufffd")


def _tail(text: str, most: int, name: str) -> str:
    if most == 0:
        return ""
    encode, decode = encoding(name).encode_ordinary, encoding(name).decode
    return decode(encode(text[-_MOST_CHARS_A_TOKEN * most :])[-most:]).lstrip("\ufffd")


def count_prompt(prompt: Prompt, model: str = "") -> int:
    """Input tokens to expect of a call with `prompt`."""
    return count_chat(_texts(prompt), model)


def hold_prompt(prompt: Prompt, model: str = "") -> int:
    """Input tokens to reserve before a call: never fewer than `count_prompt`, enough for Claude in any language."""
    return measure_prompt(prompt, model)[1]


def measure_prompt(prompt: Prompt, model: str = "") -> tuple[int, int]:
    """`count_prompt` and `hold_prompt` for the price of one."""
    tokens = _exact_prompt(tuple(_texts(prompt)), encoding_name(model))
    if _is_claude(model):
        return _expected_by_claude(tokens), _held_for_claude(tokens)
    return tokens, tokens + margin(tokens)


def margin(tokens: int) -> int:
    """What is held beyond an exact count."""
    return _FRAME_MARGIN + tokens // 50


def as_counted_by(model: str, o200k_tokens: int) -> int:
    """What `model` makes of a text that has that many tokens in o200k_base, near enough to compare prices."""
    return _expected_by_claude(o200k_tokens) if _is_claude(model) else o200k_tokens


def counts_like(model: str) -> str:
    """The same for two models that count every text alike."""
    return f"{encoding_name(model)}{' claude' if _is_claude(model) else ''}"


def _texts(prompt: Prompt) -> list[str]:
    contents = [message.content for message in prompt.messages]
    return [prompt.system, *contents] if prompt.system else contents


def _is_claude(model: str) -> bool:
    return "claude" in model


def _expected_by_claude(o200k_tokens: int) -> int:
    """Claude since Opus 4.7 counts 1.36 to 1.65 times the tokens of o200k_base in English; 1.5 times, rounded up."""
    return (3 * o200k_tokens + 1) // 2


def _held_for_claude(o200k_tokens: int) -> int:
    """Up to 2.5 times as many in Arabic, Hindi or Russian, and a fixed frame."""
    return (5 * o200k_tokens + 1) // 2 + 12


def _exact_chat(texts: Iterable[str], model: str) -> int:
    return _FRAME_PER_PROMPT + sum(_FRAME_PER_MESSAGE + _exact(text, model) for text in texts)


@lru_cache(maxsize=16)
def _exact_prompt(texts: tuple[str, ...], name: str) -> int:
    """The candidates of a call are measured one after the other, most by the same encoding."""
    return _FRAME_PER_PROMPT + sum(_FRAME_PER_MESSAGE + _exact_in(name, text) for text in texts)


def _exact(text: str, model: str) -> int:
    return _exact_in(encoding_name(model), text)


def _exact_in(name: str, text: str) -> int:
    return _count_cached(name, text) if len(text) in _CACHED_CHARS else _count(name, text)


@lru_cache(maxsize=512)
def _count_cached(name: str, text: str) -> int:
    return _count(name, text)


def _count(name: str, text: str) -> int:
    """`encode_ordinary` reads `<|endoftext|>` in a user's text as plain text, and mends lone surrogates."""
    encode = encoding(name).encode_ordinary
    if len(text) <= _SLICE_CHARS:
        return len(encode(text))
    return sum(len(encode(text[start : start + _SLICE_CHARS])) for start in range(0, len(text), _SLICE_CHARS))


@lru_cache(maxsize=256)
def encoding_name(model: str) -> str:
    """Name of the shipped encoding that `model` uses; o200k_base where tiktoken knows no better (gpt-6, Claude, …)."""
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return "o200k_base"
    return name if name in SHIPPED else "o200k_base"


@cache
def encoding(name: str) -> tiktoken.Encoding:
    """The encoding from the shipped ranks.

    Not `tiktoken.get_encoding`: that looks in a temporary folder, deletes a file it does not like and downloads.
    """
    facts = SHIPPED[name]
    made = tiktoken.Encoding(
        name,
        pat_str=facts.pattern,
        mergeable_ranks=_ranks(facts),
        special_tokens=facts.special_tokens,
    )
    made._mergeable_ranks = {}  # its own copy is in Rust; this one, 36 MiB for both, is for pickling only
    return made


def _ranks(facts: _Encoding) -> dict[bytes, int]:
    """One `base64-token rank` per line."""
    words = _content(facts).split()
    return dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))


def _content(facts: _Encoding) -> bytes:
    name = facts.ranks_file
    try:
        content = (RANKS / name).read_bytes()
    except OSError as error:
        raise ConfigError(f"token ranks {name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != facts.ranks_sha256:
        raise ConfigError(f"token ranks {name} are not the file this release was built with (SHA-256 differs)")
    return content
