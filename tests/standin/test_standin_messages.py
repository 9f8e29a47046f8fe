"""Anthropic's messages as the real SDK sees them."""

from typing import Any

import pytest
from anthropic import AsyncAnthropic, BadRequestError

from ops.standin.tokenizer import count, count_chat
from tests.standin.conftest import Control

TOOL: Any = {"name": "look_up", "input_schema": {"type": "object"}}
HI: Any = [{"role": "user", "content": "hi"}]


async def streamed(client: AsyncAnthropic, **arguments: Any) -> list[Any]:
    stream = await client.messages.create(model="claude-haiku-4-5", stream=True, **{"max_tokens": 500} | arguments)
    return [event async for event in stream]


async def test_a_whole_message_passes_the_sdks_strict_validation(anthropic: AsyncAnthropic) -> None:
    messages: Any = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": [{"type": "text", "text": "Noted."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]
    message = await anthropic.messages.create(
        model="claude-haiku-4-5", max_tokens=500, system="Be brief.", messages=messages
    )
    block: Any = message.content[0]
    assert block.text == (
        "You said: “What is my name?”. This conversation has 2 user messages. Before that you said: “My name is Ada.”."
    )
    assert (message.model, message.stop_reason) == ("claude-haiku-4-5", "end_turn")
    assert message.usage.input_tokens == count_chat(["Be brief.", "My name is Ada.", "Noted.", "What is my name?"])
    assert message.usage.output_tokens == count(block.text)


async def test_stream_events_come_in_the_providers_order(anthropic: AsyncAnthropic) -> None:
    events = await streamed(anthropic, messages=HI)
    kinds = [event.type for event in events if event.type != "ping"]
    deltas = kinds.count("content_block_delta")
    assert deltas > 1
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert events[0].message.usage.input_tokens == count_chat(["hi"])
    assert events[-2].usage.output_tokens == count(text)
    assert events[-2].delta.stop_reason == "end_turn"


async def test_the_sdks_stream_helper_rebuilds_the_message(anthropic: AsyncAnthropic) -> None:
    async with anthropic.messages.stream(model="m", max_tokens=500, messages=HI) as stream:
        message = await stream.get_final_message()
    whole = await anthropic.messages.create(model="m", max_tokens=500, messages=HI)
    assert message.content[0].model_dump(exclude_unset=True) == {
        **whole.content[0].model_dump(exclude_unset=True),
        **({"parsed_output": None} if "parsed_output" in message.content[0].model_fields_set else {}),
    }
    assert message.usage.output_tokens == whole.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_is_cut_at_max_tokens(anthropic: AsyncAnthropic, stream: bool) -> None:
    if stream:
        events = await streamed(anthropic, messages=HI, max_tokens=4)
        ended = (events[-2].delta.stop_reason, events[-2].usage.output_tokens)
    else:
        message = await anthropic.messages.create(model="m", max_tokens=4, messages=HI)
        ended = (message.stop_reason, message.usage.output_tokens)
    assert ended == ("max_tokens", 4)


async def test_input_tokens_leave_out_what_the_cache_read_and_wrote(
    anthropic: AsyncAnthropic, control: Control
) -> None:
    control.behave({"cached_tokens": 5, "cache_write_tokens": 2})
    text = "hello out there, how are you?"
    message = await anthropic.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": text}])
    usage = message.usage
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (5, 2)
    assert usage.cache_creation is not None
    assert usage.cache_creation.ephemeral_5m_input_tokens == 2
    assert usage.input_tokens == count_chat([text]) - 7
    assert control.served()["by_model"]["m"]["input_tokens"] == count_chat([text])


async def test_tool_use_is_streamed_and_its_result_is_no_user_message(
    anthropic: AsyncAnthropic, control: Control
) -> None:
    control.behave({"tool_calls": [{"name": "look_up", "arguments": {"q": "x"}}]})
    async with anthropic.messages.stream(model="m", max_tokens=99, messages=HI, tools=[TOOL]) as stream:
        message = await stream.get_final_message()
    block: Any = message.content[0]
    assert message.stop_reason == "tool_use"
    assert (block.type, block.name, block.input) == ("tool_use", "look_up", {"q": "x"})

    messages: Any = [
        *HI,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True)]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "42"}]},
    ]
    second = await anthropic.messages.create(model="m", max_tokens=99, messages=messages, tools=[TOOL])
    reply: Any = second.content[0]
    assert reply.text == "The tool answered: “42”. You said: “hi”. This conversation has 1 user message."


async def test_a_refusal_has_its_stop_reason(anthropic: AsyncAnthropic, control: Control) -> None:
    control.behave({"faults": [{"finish": "refusal"}]})
    message = await anthropic.messages.create(model="m", max_tokens=99, messages=HI)
    assert message.stop_reason == "refusal"


async def test_tokens_are_counted_without_a_call(anthropic: AsyncAnthropic, control: Control) -> None:
    counted = await anthropic.messages.count_tokens(model="m", messages=HI, system="Be brief.")
    assert counted.input_tokens == count_chat(["Be brief.", "hi"])
    assert control.served()["calls"] == 0


async def test_max_tokens_is_required(anthropic: AsyncAnthropic) -> None:
    with pytest.raises(BadRequestError, match="max_tokens: Field required"):
        await anthropic.post("/v1/messages", body={"model": "m", "messages": HI}, cast_to=object)
