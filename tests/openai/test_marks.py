"""Answers that no model gave to the question say so, in a form that a strict SDK takes."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.openai.harness import Product, ended
from tests.turn.deployment import Deployment

DOWN = {"faults": [{"status": 500, "times": 1_000}]}


def mark_of(answer: Any) -> dict[str, str] | None:
    """What the SDK kept of a member that it does not know."""
    return (answer.model_extra or {}).get("switchboard")


async def test_a_kept_answer_says_so(client: AsyncOpenAI, product: Product) -> None:
    first = await client.responses.create(model="support", input="what is a hedgehog?")
    assert mark_of(first) is None
    kept = await client.responses.create(model="support", input="what is a hedgehog?")
    assert (kept.output_text, mark_of(kept), kept.metadata) == (first.output_text, {"cache": "exact"}, {})
    assert mark_of(await client.responses.retrieve(kept.id)) == {"cache": "exact"}
    async with await client.responses.create(model="support", input="what is a hedgehog?", stream=True) as stream:
        told = {event.type: mark_of(event.response) async for event in stream if hasattr(event, "response")}
    assert told["response.completed"] == {"cache": "exact"}
    assert told["response.created"] is told["response.in_progress"] is None


async def test_a_kept_answer_to_a_chat_says_so(client: AsyncOpenAI, product: Product) -> None:
    ask: dict[str, Any] = {"model": "support", "messages": [{"role": "user", "content": "what is a hedgehog?"}]}
    assert mark_of(await client.chat.completions.create(**ask)) is None
    assert mark_of(await client.chat.completions.create(**ask)) == {"cache": "exact"}
    stream = await client.chat.completions.create(**ask, stream=True)
    marks = [(chunk.choices[0].finish_reason, mark_of(chunk)) async for chunk in stream]
    assert marks[-1] == ("stop", {"cache": "exact"})
    assert {mark for _, mark in marks[:-1]} == {None}


@pytest.mark.parametrize("why", ["providers", "budget"])
async def test_a_degraded_answer_says_why(client: AsyncOpenAI, deployment: Deployment, why: str) -> None:
    if why == "budget":
        document = json.dumps({"budgets": {"conversation_usd": "0.000001"}})
        await deployment.books.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = 'acme'", document)
    else:
        await deployment.behave(DOWN)
    async with deployment.worker(degraded_reply="Come back later.", max_attempts=1):
        response = await client.responses.create(model="support", input="hello", background=True)
        over = await ended(client, response.id)
        chat = await client.chat.completions.create(model="support", messages=[{"role": "user", "content": "hello"}])
    assert (over.status, over.output_text, mark_of(over)) == ("completed", "Come back later.", {"degraded": why})
    assert (chat.choices[0].message.content, mark_of(chat)) == ("Come back later.", {"degraded": why})
