"""The local model against what its makers published, and that it never holds up anybody."""

import asyncio
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from shared.errors import ConfigError, UpstreamUnavailable
from workers.embeddings import local, minilm
from workers.embeddings.api import Vector, halfvec
from workers.embeddings.local import LocalEmbedder

PUBLISHED = [0.06765688, 0.06349587, 0.04871312, 0.07930496, 0.03744794, 0.00265279, 0.03937486, -0.00709843]
"""First numbers of SENTENCE in the documentation of sentence-transformers."""
SENTENCE = "This is an example sentence"
ODD = ["", " ", "🦊" * 500, "مرحبا بالعالم", "\x00\x01\x02", "\ud800 half an emoji", "a" * 100_000, "\n" * 5_000]


def cosine(one: Vector | None, other: Vector | None) -> float:
    assert one is not None
    assert other is not None
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_graph_is_the_published_model() -> None:
    folder = local.folder()
    whole = minilm.graph(minilm.read_weights(folder / "model.safetensors"), int8=False)
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(SENTENCE).ids
    (rows,) = session.run(None, {"ids": np.array([[each for each in ids if each]])})
    assert rows[0][:8].tolist() == pytest.approx(PUBLISHED, abs=1e-5)


async def test_one_model_many_texts() -> None:
    """One test, as loading takes a second: meaning, company, odd texts."""
    embedder = LocalEmbedder(threads=2)
    texts = [
        "What pet does she have?",
        "Mia adopted a puppy last week.",
        "The invoice is due in a month.",
        SENTENCE,
    ]
    embedded = await embedder.embed(texts, "document", timeout_s=300)
    question, answer, other, sentence = embedded.vectors
    assert cosine(question, answer) > 0.3
    assert abs(cosine(question, other)) < 0.2
    assert sentence is not None
    assert sum(a * b for a, b in zip(sentence, PUBLISHED, strict=False)) > 0
    assert embedded.tokens[3] == 7

    among_others = await embedder.embed([ODD[6], "hi", SENTENCE, "hi"], "document", timeout_s=300)
    assert among_others.vectors[2] == sentence, "a vector must not depend on its company"
    assert among_others.vectors[1] == among_others.vectors[3]
    assert max(among_others.tokens) <= embedder.max_tokens

    odd = await embedder.embed(ODD, "query", timeout_s=300)
    for vector in odd.vectors:
        assert cosine(vector, vector) == pytest.approx(1, abs=1e-3)
        assert halfvec(vector or sentence).count(",") == 383
    await embedder.aclose()


async def test_a_question_does_not_wait_behind_documents_nor_the_event_loop_at_all() -> None:
    embedder = LocalEmbedder(threads=1)
    await embedder.prepare()
    long = ["all kinds of things, one after the other " * 40] * 60
    documents = asyncio.create_task(embedder.embed(long, "document", timeout_s=300))
    turns = 0
    asked = asyncio.create_task(embedder.embed(["hi"], "query", timeout_s=300))
    while not asked.done():
        await asyncio.sleep(0)
        turns += 1
    assert not documents.done()
    assert turns > 1
    documents.cancel()
    await embedder.aclose()


async def test_work_that_nobody_waits_for_is_not_done() -> None:
    embedder = LocalEmbedder(threads=1)
    await embedder.prepare()
    with pytest.raises(UpstreamUnavailable):
        await embedder.embed(["all kinds of things " * 60] * 64, "document", timeout_s=0.01)
    await embedder.aclose()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(ConfigError, match=r"lacks onnxruntime: `make setup`"):
        LocalEmbedder()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ConfigError, match="SHA-256"):
        minilm.read_weights(path)
