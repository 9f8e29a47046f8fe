"""What an embedder is: texts in, vectors out. Implemented by `local` and `openai`, used by `writer` and `query`.

A vector is an array of float32 of length one, so that the inner product is the cosine. Vectors of different models must
never be compared: everything that is kept names its model.
"""

import array
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from shared.errors import UpstreamUnavailable

Purpose = Literal["query", "document"]
"""Some models put a question and what answers it down differently; and a question does not wait behind documents."""
Vector: TypeAlias = Sequence[float]
"""Made as `array('f')`: four bytes a number."""

_NEAR = 1e-4
"""How far a length may be from one: half precision is coarser."""


class Embedded(NamedTuple):
    """One answer. `vectors` and `tokens` are by text, None for one whose vector cannot be used; `model` is the one the
    provider says it used."""

    vectors: Sequence[Vector | None]
    tokens: Sequence[int]
    model: str
    request_id: str | None = None
    raw_usage: Mapping[str, Any] = {}


class Embedder(Protocol):
    """A model with its connections or its threads. `max_tokens` bounds a text: a longer one is cut there."""

    provider: str
    model: str
    name: str
    """`provider:model`, with `@dimensions` where they are not the model's own."""
    dimensions: int
    max_tokens: int
    max_texts: int
    """Of one call."""
    max_batch_tokens: int
    """Of one call, all texts together."""
    free: bool
    """Nothing is charged: then nothing is reserved, and the ledger has no row of it."""

    def count(self, text: str) -> int:
        """Tokens of a text, cut included: what a call is reserved with."""

    async def embed(self, texts: Sequence[str], purpose: Purpose, *, timeout_s: float) -> Embedded:
        """Raises UpstreamError; `UpstreamRejected` when the provider refuses one of the texts."""

    async def prepare(self) -> None:
        """Whatever the first call would otherwise wait for."""

    async def aclose(self) -> None: ...


def halfvec(vector: Vector) -> str:
    """A vector as PostgreSQL reads it. Half precision has 11 bits: four digits say all of it."""
    return "[" + ",".join([f"{number:.4g}" for number in vector]) + "]"


def checked(vectors: Sequence[Vector], dimensions: int, provider: str) -> list[Vector | None]:
    """Each made one long; None where a number is not finite, or all are 0.

    Raises UpstreamUnavailable when none can be used, or one has another length: then it is not this model that answers.
    """
    for vector in vectors:
        if len(vector) != dimensions:
            message = f"{provider} answered with {len(vector)} dimensions instead of {dimensions}."
            raise UpstreamUnavailable(message, provider=provider)
    made = [_unit(vector) for vector in vectors]
    if not any(vector is not None for vector in made):
        raise UpstreamUnavailable(f"{provider} answered with vectors that are none.", provider=provider)
    return made


def _unit(vector: Vector) -> Vector | None:
    norm = math.hypot(*vector)
    if not math.isfinite(norm) or norm == 0:
        return None
    return vector if abs(norm - 1) < _NEAR else array.array("f", [number / norm for number in vector])
