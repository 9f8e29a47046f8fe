"""OpenAI's embeddings, and every server that speaks them: one call for many texts, as `api.Embedder` describes.

Called by the writer and by the query's way. The SDK authenticates, sends and maps errors; retries are ours. A text that
is too long is cut by the model's own tokens. Vectors come as base64, a quarter of the bytes of JSON numbers.
"""

import array
import asyncio
import sys
from base64 import b64decode
from collections.abc import Sequence
from typing import Any, Final

import httpx2
import msgspec
import openai

from shared.errors import UpstreamUnavailable
from workers.embeddings.api import Embedded, Purpose, Vector, checked
from workers.embeddings.shares import shares
from workers.ledger import tokens
from workers.models import errors
from workers.models.http import open_client
from workers.models.openai import FAULTS, OFFICIAL_URL, PROVIDER

MAX_TOKENS: Final = 8_191
_EMPTY = " "
"""OpenAI refuses an empty text."""
_FAILED: tuple[type[Exception], ...] = (*FAULTS.known, ValueError)  # ValueError: no base64, half a number


class _Item(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Answer(msgspec.Struct):
    data: list[_Item]
    model: str | None = None
    usage: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Answer).decode


class OpenAIEmbedder:
    """`base_url` None is OpenAI itself. `shortened`: the provider is asked for so many dimensions, not for its own."""

    provider: str = PROVIDER
    max_tokens: int = MAX_TOKENS
    max_texts: int = 2_048
    max_batch_tokens: int = 300_000
    free: bool = False

    def __init__(
        self,
        model: str,
        *,
        name: str,
        api_key: str,
        base_url: str | None = None,
        dimensions: int,
        shortened: bool = False,
        idle_timeout_s: float = 30.0,
    ) -> None:
        self.model = model
        self.dimensions = dimensions
        self._shortened = shortened
        self.name = name
        self._client = openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url or OFFICIAL_URL, max_retries=0, http_client=open_client(idle_timeout_s)
        )

    def count(self, text: str) -> int:
        return min(MAX_TOKENS, tokens.count(text, self.model) or 1)

    async def embed(self, texts: Sequence[str], purpose: Purpose, *, timeout_s: float) -> Embedded:
        """See `Embedder.embed`; `purpose` makes no difference here."""
        body: dict[str, Any] = {
            "model": self.model,
            "input": [tokens.beginning(text, self.model, MAX_TOKENS) or _EMPTY for text in texts],
            "encoding_format": "base64",
        }
        if self._shortened:
            body["dimensions"] = self.dimensions
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._client.post(
                    "/embeddings", content=msgspec.json.encode(body), cast_to=httpx2.Response
                )
            answer = _decode(response.content)
            vectors = self._vectors(answer, len(texts))
        except _FAILED as error:
            raise FAULTS.translate(error) from error
        total = answer.usage.get("prompt_tokens")
        counted = [self.count(text) for text in texts]
        used = shares(total, counted) if isinstance(total, int) and total >= 0 else counted
        raw = answer.usage if used is not counted else {**answer.usage, "estimated": True}
        return Embedded(vectors, used, answer.model or self.model, errors.request_id(response.headers), raw)

    async def prepare(self) -> None:
        """The tokenizer is loaded at the process's start; a connection is made by the first call."""

    async def aclose(self) -> None:
        await self._client.close()

    def _vectors(self, answer: _Answer, wanted: int) -> list[Vector | None]:
        """In the order of the texts, whatever the order of the answer."""
        by_index = {item.index: item.embedding for item in answer.data}
        if sorted(by_index) != list(range(wanted)):
            raise UpstreamUnavailable(f"{PROVIDER} answered for {len(by_index)} of {wanted} texts.", provider=PROVIDER)
        return checked([_read(by_index[index]) for index in range(wanted)], self.dimensions, PROVIDER)


def _read(embedding: str | list[float]) -> Vector:
    """Little-endian float32 in base64; a compatible server may send numbers all the same."""
    if not isinstance(embedding, str):
        return array.array("f", embedding)
    vector = array.array("f", b64decode(embedding))
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
