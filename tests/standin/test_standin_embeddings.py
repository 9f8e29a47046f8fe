"""Embeddings as the real OpenAI SDK sees them."""

import math
from collections.abc import Sequence

import pytest
from openai import AsyncOpenAI, BadRequestError

from ops.standin.tokenizer import count
from tests.standin.conftest import Control

MODEL = "text-embedding-3-small"


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def embed(client: AsyncOpenAI, *texts: str) -> list[list[float]]:
    """The SDK asks for base64 unless told otherwise."""
    answer = await client.embeddings.create(model=MODEL, input=list(texts))
    return [item.embedding for item in answer.data]


async def test_equal_texts_are_equal_and_all_are_unit_vectors(embedder: AsyncOpenAI) -> None:
    first, again, other = await embed(embedder, "a cat sat", "a cat sat", "sat a cat")
    assert first == again
    assert first != other
    assert len(first) == 1536
    assert math.hypot(*first) == pytest.approx(1, abs=1e-6)


async def test_texts_with_words_in_common_are_nearer(embedder: AsyncOpenAI) -> None:
    question, related, unrelated = await embed(
        embedder, "what is the name of my dog", "The name of my dog is Rex.", "Invoices are due in thirty days."
    )
    assert cosine(question, related) > 0.5
    assert abs(cosine(question, unrelated)) < 0.2


async def test_both_encodings_hold_the_same_numbers(embedder: AsyncOpenAI, openai: AsyncOpenAI) -> None:
    (packed,) = await embed(embedder, "hello")
    plain = await openai.embeddings.create(model=MODEL, input="hello", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(packed, abs=1e-7)


@pytest.mark.parametrize("dimensions", [1, 256, 3072])
async def test_dimensions_are_respected(embedder: AsyncOpenAI, dimensions: int) -> None:
    answer = await embedder.embeddings.create(model=MODEL, input="hello", dimensions=dimensions)
    assert len(answer.data[0].embedding) == dimensions


async def test_usage_counts_every_input_and_is_booked(embedder: AsyncOpenAI, control: Control) -> None:
    answer = await embedder.embeddings.create(model=MODEL, input=["hello out there", "hi"])
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == count("hello out there") + count("hi")
    booked = control.served()["by_model"][MODEL]
    assert (booked["input_tokens"], booked["output_tokens"]) == (answer.usage.prompt_tokens, 0)


async def test_token_ids_are_accepted(embedder: AsyncOpenAI) -> None:
    answer = await embedder.embeddings.create(model=MODEL, input=[[1, 2, 3], [4]])
    assert (len(answer.data), answer.usage.prompt_tokens) == (2, 4)


async def test_an_empty_input_is_refused(embedder: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError):
        await embedder.embeddings.create(model=MODEL, input="")
