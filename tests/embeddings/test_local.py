"""The local model against what its makers published, and that it never holds up anybody."""

from collections.abc import AsyncIterator

import pytest

from workers.embeddings.api import Vector, halfvec
from workers.embeddings.local import LocalEmbedder

PUBLISHED = [0.06765688, 0.06349587, 0.04871312, 0.07930496, 0.03744794, 0.00265279, 0.03937486, -0.00709843]
"""First numbers of "This is an example sentence" in the documentation of sentence-transformers."""


@pytest.fixture(scope="module")
async def shared_local() -> AsyncIterator[LocalEmbedder]:
    embedder = LocalEmbedder(threads=1)
    yield embedder
    await embedder.aclose()


@pytest.fixture
async def local() -> AsyncIterator[LocalEmbedder]:
    embedder = LocalEmbedder(threads=1)
    yield embedder
    await embedder.aclose()


def cosine(one: Vector, other: Vector) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_texts_that_mean_the_same_are_near(local: LocalEmbedder) -> None:
    question, answer, other = (
        await local.embed(
            ["What pet does she have?", "Mia adopted a puppy last week.", "The invoice is due in thirty days."],
            "document",
            timeout_s=30,
        )
    ).vectors
    assert cosine(question, answer) > 0.3
    assert abs(cosine(question, other)) < 0.2


async def test_a_vector_does_not_depend_on_its_company(local: LocalEmbedder) -> None:
    texts = ["hi", "This is an example sentence", "a much longer text about " + "all kinds of things " * 60, "hi"]
    together = await local.embed(texts, "document", timeout_s=30)
    alone = await local.embed(texts[1:2], "query", timeout_s=30)
    assert together.vectors[1] == alone.vectors[0]
    assert together.vectors[0] == together.vectors[3]
    assert together.tokens == [3, 7, 256, 3]


@pytest.mark.parametrize(
    "text", ["", " ", "🦊" * 500, "مرحبا بالعالم", "\x00\x01\x02", "\ud800 half an emoji", "a" * 100_000, "\n" * 5_000]
)
async def test_any_text_has_a_vector(local: LocalEmbedder, text: str) -> None:
    embedded = await local.embed([text], "document", timeout_s=30)
    assert len(embedded.vectors[0]) == 384
    assert cosine(embedded.vectors[0], embedded.vectors[0]) == pytest.approx(1, abs=1e-3)
    assert halfvec(embedded.vectors[0]).count(",") == 383
