"""Chat completions through the unmodified SDK, strict validation on."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from redis.asyncio import Redis

from tests.ingress.harness import Served, Worker
from tests.openai.harness import Product, begin_anew

HELLO: Any = [{"role": "user", "content": "hello"}]


def job_id_of(completion_id: str) -> str:
    return completion_id.removeprefix("chatcmpl-")


async def test_a_plain_chat_gets_its_answer_and_usage(product: Product, client: AsyncOpenAI) -> None:
    await product.deployment.behave({"cached_tokens": 8, "reasoning_tokens": 5})
    completion = await client.chat.completions.create(model="support", messages=HELLO, user="u1")
    (choice,) = completion.choices
    assert (choice.finish_reason, choice.message.role, completion.model) == ("stop", "assistant", "support")
    assert choice.message.content is not None
    assert "hello" in choice.message.content
    (row,) = await product.deployment.rows("llm_calls", job_id_of(completion.id))
    usage = completion.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (row["input_tokens"], row["output_tokens"])
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 8
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 5
    (job,) = await product.deployment.rows("jobs", job_id_of(completion.id))
    assert job["user_id"] == "u1"


async def test_the_sync_sdk_does_the_same(product: Product, sync_client: OpenAI) -> None:
    def ask() -> str | None:
        return sync_client.chat.completions.create(model="sales", messages=HELLO).choices[0].message.content

    assert "hello" in (await asyncio.to_thread(ask) or "")


async def test_the_caller_carries_the_history_and_it_is_written_once(product: Product, client: AsyncOpenAI) -> None:
    await product.deployment.behave({"reply": "{count}|{previous}|{system}"})
    completion = await client.chat.completions.create(
        model="sales",  # which has no memory of its own
        messages=[
            {"role": "system", "content": "Speak of ships."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "eins"},
            {"role": "user", "content": [{"type": "text", "text": "two"}]},
        ],
    )
    text = completion.choices[0].message.content or ""
    assert text.startswith("2|one|")
    assert text.endswith("Speak of ships.")
    messages = await product.deployment.rows("messages", job_id_of(completion.id))
    assert [message["body"] for message in messages] == ["two", text]


async def test_a_bound_is_kept_and_said(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"output_tokens": 400})
    for bound in ({"max_tokens": 20}, {"max_completion_tokens": 20}):
        completion = await client.chat.completions.create(model="support", messages=HELLO, **bound)  # type: ignore[call-overload]
        assert completion.choices[0].finish_reason == "length"
        assert completion.usage.completion_tokens == 20


async def chunks_of(client: AsyncOpenAI, **more: Any) -> list[Any]:
    stream = await client.chat.completions.create(model="support", messages=HELLO, stream=True, **more)
    return [chunk async for chunk in stream]


async def test_a_streamed_chat_tells_text_and_usage(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"tokens_per_s": 200, "output_tokens": 40})
    chunks = await chunks_of(client, stream_options={"include_usage": True})
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    (_, reply) = await product.deployment.rows("messages", job_id_of(chunks[0].id))
    assert text == reply["body"]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 40
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_streamed_chat_tells_no_usage_unless_asked(client: AsyncOpenAI, product: Product) -> None:
    chunks = await chunks_of(client)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_the_wire_is_that_of_openai(product: Product) -> None:
    body = {"model": "support", "messages": HELLO, "stream": True}
    async with product.server.client("sk-of-acme-tests") as raw:
        response = await raw.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.splitlines() if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


async def test_a_chat_that_fails_in_its_stream_raises(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"faults": [{"status": 400}]})
    with pytest.raises(openai.APIError) as error:
        await chunks_of(client)
    assert error.value.code == "upstream_rejected"


async def test_text_that_is_void_ends_the_stream_with_an_error(
    client: AsyncOpenAI, server: Served, hands: Worker
) -> None:
    stream = await client.chat.completions.create(model="support", messages=HELLO, stream=True)
    (job_id,) = await hands.claim()
    await hands.say(job_id, "void")
    reading = aiter(stream)
    await anext(reading)
    assert (await anext(reading)).choices[0].delta.content == "void"
    await begin_anew(hands, job_id)
    with pytest.raises(openai.APIError) as error:
        await anext(reading)
    assert error.value.code == "attempt_reset"


async def test_lost_text_is_made_good_at_the_end_and_an_error_elsewhere(
    client: AsyncOpenAI, server: Served, hands: Worker
) -> None:
    for said, reply in (("one ", "one two"), ("two", "one two")):
        stream = await client.chat.completions.create(model="support", messages=HELLO, stream=True)
        (job_id,) = await hands.claim()
        await hands.say(job_id, said)
        await hands.end(job_id, reply=reply)
        if reply.startswith(said):
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == reply
        else:
            with pytest.raises(openai.APIError) as error:
                _ = [chunk async for chunk in stream]
            assert error.value.code == "text_lost"


async def test_a_chat_waits_for_nobody_to_join_it(client: AsyncOpenAI, server: Served, redis: Redis) -> None:
    """Whatever the agent's policy: no other message can be of its conversation."""
    stream = await client.chat.completions.create(model="support", messages=HELLO, stream=True)
    assert await redis.zcard("arq:queue") == 1
    assert await redis.zcard("arq:queue:debounce") == 0
    await stream.close()
