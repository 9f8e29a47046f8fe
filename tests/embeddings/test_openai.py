"""OpenAI's embedder against the stand-in server: order, cuts, accounts, and whatever a server may get wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from ops.stack.standin import Standin
from shared.errors import AccountRejected, UpstreamError, UpstreamRateLimited, UpstreamRejected, UpstreamUnavailable
from workers.embeddings.api import Vector
from workers.embeddings.openai import MAX_TOKENS, OpenAIEmbedder
from workers.ledger import tokens

MODEL = "text-embedding-3-small"
Behave = Callable[..., Awaitable[None]]


def open_small(standin: Standin, *, dimensions: int = 1536, shortened: bool = False) -> OpenAIEmbedder:
    address = f"{standin.url}/v1"
    return OpenAIEmbedder(
        MODEL, name="small", api_key="sk-test", base_url=address, dimensions=dimensions, shortened=shortened
    )


@pytest.fixture
async def embedder(standin: Standin) -> AsyncIterator[OpenAIEmbedder]:
    made = OpenAIEmbedder(
        MODEL, name=f"openai:{MODEL}", api_key="sk-test", base_url=f"{standin.url}/v1", dimensions=1536
    )
    yield made
    await made.aclose()


@pytest.fixture
def behave(standin: Standin) -> Behave:
    async def post(**rule: Any) -> None:
        async with httpx.AsyncClient(base_url=standin.url) as client:
            (await client.post("/_behaviour", json=rule)).raise_for_status()

    return post


def cosine(one: Vector | None, other: Vector | None) -> float:
    assert one is not None
    assert other is not None
    return sum(a * b for a, b in zip(one, other, strict=True))


async def served(standin: Standin) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=standin.url) as client:
        books: dict[str, Any] = (await client.get("/_served")).json()
        return books


async def test_vectors_come_in_the_order_of_the_texts(embedder: OpenAIEmbedder) -> None:
    texts = [f"text number {number}" for number in range(40)]
    together = await embedder.embed(texts, "document", timeout_s=60)
    alone = await embedder.embed(texts[17:18], "document", timeout_s=60)
    assert len(together.vectors) == 40
    assert cosine(together.vectors[17], alone.vectors[0]) == pytest.approx(1, abs=1e-5)
    assert [len(vector or ()) for vector in together.vectors] == [1536] * 40


async def test_tokens_add_up_to_what_the_provider_says(embedder: OpenAIEmbedder, standin: Standin) -> None:
    embedded = await embedder.embed(["hello out there", "hi", ""], "query", timeout_s=60)
    assert sum(embedded.tokens) == (await served(standin))["by_model"][MODEL]["input_tokens"]
    assert embedded.raw_usage["prompt_tokens"] == sum(embedded.tokens)
    assert embedded.request_id


async def test_a_text_that_is_too_long_is_cut_by_its_tokens(embedder: OpenAIEmbedder, standin: Standin) -> None:
    text = "an otter 🦦 swims " * 4_000
    assert tokens.count(text, MODEL) > 2 * MAX_TOKENS
    assert embedder.count(text) == MAX_TOKENS
    embedded = await embedder.embed([text], "document", timeout_s=60)
    assert embedded.vectors[0] is not None
    cut = tokens.beginning(text, MODEL, MAX_TOKENS)
    assert text.startswith(cut)
    assert MAX_TOKENS - 4 <= tokens.count(cut, MODEL) <= MAX_TOKENS


async def test_dimensions_are_asked_for_where_they_are_not_the_models_own(standin: Standin) -> None:
    short = open_small(standin, dimensions=256, shortened=True)
    embedded = await short.embed(["hello"], "document", timeout_s=60)
    assert len(embedded.vectors[0] or ()) == 256
    await short.aclose()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, None, UpstreamRejected),
        (401, None, AccountRejected),
        (429, None, UpstreamRateLimited),
        (429, "insufficient_quota", AccountRejected),
        (500, None, UpstreamUnavailable),
    ],
)
async def test_refusals_are_told_apart(
    embedder: OpenAIEmbedder, behave: Behave, status: int, code: str | None, expected: type[UpstreamError]
) -> None:
    await behave(faults=[{"status": status, "code": code}] if code else [{"status": status}])
    with pytest.raises(expected):
        await embedder.embed(["hello"], "document", timeout_s=60)


@pytest.mark.parametrize("fault", ["malformed", "end_early", "cut_stream"])
async def test_half_an_answer_is_none(embedder: OpenAIEmbedder, behave: Behave, fault: str) -> None:
    await behave(faults=[fault])
    with pytest.raises(UpstreamUnavailable):
        await embedder.embed(["hello"], "document", timeout_s=60)


async def test_a_silent_server_is_given_up_on(embedder: OpenAIEmbedder, behave: Behave) -> None:
    await behave(faults=["hang"])
    with pytest.raises(UpstreamUnavailable):
        await embedder.embed(["hello"], "document", timeout_s=0.2)


async def test_vectors_of_another_length_are_not_this_models(embedder: OpenAIEmbedder, behave: Behave) -> None:
    await behave(dimensions=768)
    with pytest.raises(UpstreamUnavailable, match="768 dimensions instead of 1536"):
        await embedder.embed(["hello"], "document", timeout_s=60)


async def test_a_vector_that_is_no_number_spoils_no_other(embedder: OpenAIEmbedder, behave: Behave) -> None:
    await behave(nan_for="poison")
    embedded = await embedder.embed(["fine", "poison", "fine, too"], "document", timeout_s=60)
    assert [vector is None for vector in embedded.vectors] == [False, True, False]
    with pytest.raises(UpstreamUnavailable):
        await embedder.embed(["poison"], "document", timeout_s=60)


async def test_a_caller_that_leaves_leaves_nothing_open(embedder: OpenAIEmbedder, behave: Behave) -> None:
    await behave(faults=["hang"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await embedder.embed(["hello"], "query", timeout_s=60)
    assert (await embedder.embed(["hello"], "query", timeout_s=60)).vectors[0] is not None
