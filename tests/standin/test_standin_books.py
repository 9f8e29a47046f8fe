"""The books: they agree with what the SDKs were told, and with what was under way at once."""

import asyncio
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.conftest import Eventually
from tests.standin.conftest import Control


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_books_equal_the_usage_the_sdks_saw(
    openai: AsyncOpenAI, anthropic: AsyncAnthropic, control: Control
) -> None:
    control.behave({"cached_tokens": 2, "reasoning_tokens": 3})
    chat = await openai.chat.completions.create(model="a", messages=user("one"))
    response = await openai.responses.create(model="a", input="two words")
    message = await anthropic.messages.create(model="b", max_tokens=9, messages=user("three whole words"))
    assert chat.usage is not None
    assert response.usage is not None
    books = control.served()
    assert books["by_model"]["a"] == {
        "calls": 2,
        "input_tokens": chat.usage.prompt_tokens + response.usage.input_tokens,
        "output_tokens": chat.usage.completion_tokens + response.usage.output_tokens,
        "cached_tokens": 4,
        "cache_write_tokens": 0,
        "reasoning_tokens": 6,
    }
    assert books["by_model"]["b"]["input_tokens"] == message.usage.input_tokens + 2
    assert books["by_model"]["b"]["output_tokens"] == message.usage.output_tokens
    assert (books["calls"], books["statuses"]) == (3, {"served": 3})


async def test_each_request_can_be_found_by_the_ids_its_caller_has(openai: AsyncOpenAI, control: Control) -> None:
    completion = await openai.chat.completions.create(model="m", messages=user("find me"))
    (entry,) = control.entries(id=completion.id)
    assert entry["request_id"] == completion._request_id
    assert (entry["provider"], entry["operation"], entry["user_text"]) == ("openai", "chat", "find me")
    assert entry["stream"] is False


async def test_a_streamed_call_is_booked_before_its_caller_has_the_end(openai: AsyncOpenAI, control: Control) -> None:
    stream: Any = await openai.responses.create(model="m", input="hi", stream=True)
    async for event in stream:
        if event.type == "response.completed":
            books = control.served()
            break
    await stream.close()
    assert (books["statuses"], books["concurrency"]) == ({"served": 1}, 0)
    assert books["by_model"]["m"]["output_tokens"] == event.response.usage.output_tokens


async def test_the_peak_is_the_most_calls_under_way_at_once(
    openai: AsyncOpenAI, control: Control, eventually: Eventually
) -> None:
    control.behave({"faults": [{"hang": True, "times": 5}]})
    calls = [asyncio.create_task(openai.chat.completions.create(model="m", messages=user("hi"))) for _ in range(5)]
    await eventually(lambda: control.served()["concurrency"] == 5)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await eventually(lambda: control.served()["concurrency"] == 0)
    await openai.chat.completions.create(model="m", messages=user("hi"))
    assert control.served()["concurrency_peak"] == 5
    assert control.served()["statuses"] == {"hung": 5, "served": 1}


async def test_the_list_is_as_long_as_asked_for(embedder: AsyncOpenAI, control: Control) -> None:
    for text in ("one", "two", "three"):
        await embedder.embeddings.create(model="m", input=text)
    assert [entry["user_text"] for entry in control.served()["requests"]] == ["one", "two", "three"]
    latest = control.http.get("/_served", params={"last": 2}).json()
    assert [entry["user_text"] for entry in latest["requests"]] == ["two", "three"]
    assert control.http.get("/_served", params={"last": 0}).json()["requests"] == []
    assert control.http.get("/_served", params={"last": "x"}).status_code == 422


async def test_a_reset_empties_the_books(embedder: AsyncOpenAI, control: Control) -> None:
    await embedder.embeddings.create(model="m", input="one")
    control.http.delete("/_served").raise_for_status()
    assert control.served() == {
        "calls": 0,
        "statuses": {},
        "by_model": {},
        "concurrency": 0,
        "concurrency_peak": 0,
        "faults": {},
        "requests": [],
    }
