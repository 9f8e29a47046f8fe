"""OpenAI's `POST /v1/embeddings`: unit vectors made of hashes, the same for the same text in every process.

Each word of a text pulls its vector towards a few coordinates of its own, so that texts with words in common are
near each other and memory search finds something; the text as a whole pulls a little, so that no two texts are equal.
"""

import hashlib
import math
import re
import struct
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ops.standin.answer import Answer, Usage
from ops.standin.ask import Ask, Said
from ops.standin.behaviour import Finish, Rule
from ops.standin.delivery import Frame
from ops.standin.dialects.dialect import Ids, decode, encode
from ops.standin.dialects.openai import OpenAIDialect
from ops.standin.tokenizer import count

_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536
_COORDINATES = 8
"""Coordinates a word pulls at: few enough to be quick, enough that two words seldom collide."""
_WORD = re.compile(r"\w+")
_NonEmpty = Annotated[str, Meta(min_length=1)]
_TokenIds = Annotated[list[int], Meta(min_length=1)]


class _Request(msgspec.Struct):
    model: _NonEmpty
    input: _NonEmpty | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=2048)]
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    encoding_format: Literal["float", "base64"] = "float"


_request = msgspec.json.Decoder(_Request)


class Embeddings(OpenAIDialect):
    operation = "embeddings"
    id_prefix = "emb_"

    def read(self, body: bytes) -> Ask:
        request = decode(_request, body)
        inputs = _inputs(request.input)
        size = request.dimensions or _DIMENSIONS.get(request.model, _DEFAULT_DIMENSIONS)
        return Ask(
            model=request.model,
            said=tuple(Said("user", text) for text, _ in inputs),
            input_tokens=sum(tokens for _, tokens in inputs),
            inputs=True,
            extras={"size": size, "base64": request.encoding_format == "base64"},
        )

    def answer(self, ask: Ask, rule: Rule, finish: Finish | None) -> Answer:
        ask.extras["size"] = rule.dimensions or ask.extras["size"]
        ask.extras["nan_for"] = rule.nan_for
        return Answer((), "stop", Usage(ask.input_tokens, 0))

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> bytes:
        size, nan_for = ask.extras["size"], ask.extras["nan_for"]
        broken = struct.pack(f"<{size}f", *[math.nan] * size)
        vectors = [
            broken if nan_for is not None and nan_for in said.text else vector(said.text, size) for said in ask.said
        ]
        values = [b64encode(raw).decode() if ask.extras["base64"] else _floats(raw) for raw in vectors]
        data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)]
        usage = {"prompt_tokens": ask.input_tokens, "total_tokens": ask.input_tokens}
        return encode({"object": "list", "data": data, "model": ask.model, "usage": usage})

    def frames(self, ask: Ask, answer: Answer, ids: Ids) -> Iterator[Frame]:
        raise AssertionError("unreachable: embeddings are not streamed")


def _inputs(given: str | list[str | int | list[int]]) -> list[tuple[str, int]]:
    """(text, tokens) of each input. Token ids stand for themselves: their text is how they are written."""
    if isinstance(given, str):
        return [(given, count(given))]
    if all(isinstance(item, int) for item in given):
        return [(str(given), len(given))]
    return [(item, count(item)) if isinstance(item, str) else (str(item), _length(item)) for item in given]


def _length(item: int | list[int]) -> int:
    return 1 if isinstance(item, int) else len(item)


@lru_cache(maxsize=1024)
def vector(text: str, size: int) -> bytes:
    """`size` little-endian floats of length 1."""
    values = [0.0] * size
    for feature, weight in [*((word, 1.0) for word in _WORD.findall(text.casefold())), ("\0" + text, 0.3)]:
        digest = hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=4 * _COORDINATES).digest()
        for number in struct.unpack(f"<{_COORDINATES}I", digest):
            values[number % size] += weight if number >> 31 else -weight
    norm = math.hypot(*values)
    if not norm:  # in very few dimensions everything may cancel out
        values[0] = norm = 1.0
    return struct.pack(f"<{size}f", *(value / norm for value in values))


def _floats(raw: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))
