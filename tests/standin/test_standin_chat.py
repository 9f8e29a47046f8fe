"""Chat completions as the real OpenAI SDK sees them."""

from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from ops.standin.tokenizer import count, count_chat
from tests.standin.conftest import Control

TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def user(*texts: str) -> Any:
    return [{"role": "user", "content": text} for text in texts]


async def streamed(client: AsyncOpenAI, **arguments: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(
        model="gpt-5.4-mini", stream=True, stream_options={"include_usage": True}, **arguments
    )
    return [chunk async for chunk in stream]


async def test_the_reply_quotes_and_counts_what_the_conversation_was_sent(openai: AsyncOpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]
    completion = await openai.chat.completions.create(model="gpt-5.4-mini", messages=messages)
    assert completion.choices[0].message.content == (
        "You said: “What is my name?”. This conversation has 2 user messages. Before that you said: “My name is Ada.”."
    )
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "gpt-5.4-mini"


async def test_usage_is_what_the_real_tokenizer_counts(openai: AsyncOpenAI) -> None:
    text = "Grüße aus Köln 👩‍👩‍👧 <|endoftext|> and 12345 words"
    completion = await openai.chat.completions.create(model="any-model", messages=user(text))
    assert completion.usage is not None
    reply = completion.choices[0].message.content
    assert reply is not None
    assert completion.usage.prompt_tokens == count_chat([text])
    assert completion.usage.completion_tokens == count(reply)
    assert completion.usage.total_tokens == count_chat([text]) + count(reply)


async def test_a_stream_has_the_same_text_and_usage_as_the_whole(openai: AsyncOpenAI) -> None:
    chunks = await streamed(openai, messages=user("Grüße 👩‍👩‍👧"))
    whole = await openai.chat.completions.create(model="gpt-5.4-mini", messages=user("Grüße 👩‍👩‍👧"))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


async def test_stream_events_come_in_the_providers_order(openai: AsyncOpenAI) -> None:
    first, *pieces, last, usage = await streamed(openai, messages=user("hi"))
    assert first.choices[0].delta.role == "assistant"
    assert all(piece.choices[0].delta.content for piece in pieces)
    assert (last.choices[0].delta.content, last.choices[0].finish_reason) == (None, "stop")
    assert usage.usage is not None
    assert all(chunk.usage is None for chunk in (first, *pieces, last))


async def test_usage_of_a_stream_is_left_out_unless_asked_for(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(model="m", messages=user("hi"), stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("bound", ["max_tokens", "max_completion_tokens"])
async def test_a_reply_is_cut_at_the_bound(openai: AsyncOpenAI, bound: str) -> None:
    completion = await openai.chat.completions.create(model="m", messages=user("hi"), extra_body={bound: 4})
    assert completion.choices[0].finish_reason == "length"
    assert completion.choices[0].message.content == "You said: “"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4


async def test_a_bound_the_reply_just_fits_does_not_cut_it(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"reply": "one two three"})
    completion = await openai.chat.completions.create(model="m", messages=user("hi"), max_completion_tokens=3)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("one two three", "stop")


async def test_tool_calls_are_answered_and_their_result_is_quoted(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"tool_calls": [{"name": "look_up", "arguments": {"q": "ä"}}]})
    asked: list[Any] = user("Look it up.")
    first = await openai.chat.completions.create(model="m", messages=asked, tools=[TOOL])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("look_up", '{"q":"ä"}')
    assert first.usage is not None
    assert first.usage.completion_tokens == count("look_up") + count('{"q":"ä"}')

    said: Any = message.model_dump(exclude_none=True)
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "42"}
    second = await openai.chat.completions.create(model="m", messages=[*asked, said, result], tools=[TOOL])
    assert second.choices[0].message.content == (
        "The tool answered: “42”. You said: “Look it up.”. This conversation has 1 user message."
    )


async def test_tool_calls_are_streamed_as_pieces_of_arguments(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"tool_calls": [{"name": "a", "arguments": {"n": 1}}, {"name": "b"}]})
    chunks = await streamed(openai, messages=user("hi"), tools=[TOOL])
    deltas = [call for chunk in chunks[:-1] for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.function.name for call in deltas if call.function and call.id] == ["a", "b"]
    arguments = {index: "" for index in (0, 1)}
    for call in deltas:
        assert call.function is not None
        arguments[call.index] += call.function.arguments or ""
    assert arguments == {0: '{"n":1}', 1: "{}"}
    assert chunks[-2].choices[0].finish_reason == "tool_calls"


async def test_tools_are_not_called_when_none_are_offered_or_wanted(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"tool_calls": [{"name": "look_up"}]})
    without = await openai.chat.completions.create(model="m", messages=user("hi"))
    unwanted = await openai.chat.completions.create(model="m", messages=user("hi"), tools=[TOOL], tool_choice="none")
    assert [answer.choices[0].finish_reason for answer in (without, unwanted)] == ["stop", "stop"]


async def test_cached_and_reasoning_tokens_are_part_of_the_totals(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"cached_tokens": 5, "cache_write_tokens": 2, "reasoning_tokens": 7, "output_tokens": 3})
    chunks = await streamed(openai, messages=user("hello out there"))
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    assert usage.prompt_tokens == count_chat(["hello out there"])
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.cache_write_tokens) == (5, 2)
    assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (10, 7)


async def test_reasoning_that_fills_the_bound_leaves_no_reply(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"reasoning_tokens": 50})
    completion = await openai.chat.completions.create(model="m", messages=user("hi"), max_completion_tokens=20)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("", "length")
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 20
