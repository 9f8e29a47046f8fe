"""The Responses API as the real OpenAI SDK sees it."""

from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types.responses import Response, ResponseFunctionToolCall

from ops.standin.tokenizer import count, count_chat
from tests.standin.conftest import Control

TOOL: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": False}


async def streamed(client: AsyncOpenAI, **arguments: Any) -> list[Any]:
    stream = await client.responses.create(model="gpt-5.4-mini", stream=True, **arguments)
    return [event async for event in stream]


async def test_a_whole_response_passes_the_sdks_strict_validation(openai: AsyncOpenAI) -> None:
    response = await openai.responses.create(
        model="gpt-5.4-mini", instructions="Be brief.", input="hi", metadata={"job": "7"}
    )
    assert response.output_text == "You said: “hi”. This conversation has 1 user message."
    assert (response.status, response.metadata, response.instructions) == ("completed", {"job": "7"}, "Be brief.")
    assert response.usage is not None
    assert response.usage.input_tokens == count_chat(["Be brief.", "hi"])
    assert response.usage.output_tokens == count(response.output_text)


async def test_stream_events_come_in_the_providers_order(openai: AsyncOpenAI) -> None:
    events = await streamed(openai, input="hi")
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 1
    assert kinds == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_stream_ends_with_the_response_its_pieces_make(openai: AsyncOpenAI) -> None:
    events = await streamed(openai, input="Grüße 👩‍👩‍👧")
    final: Response = events[-1].response
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert final.output_text == text
    assert final.usage is not None
    assert final.usage.output_tokens == count(text)


async def test_the_sdks_stream_helper_accepts_the_stream(openai: AsyncOpenAI) -> None:
    async with openai.responses.stream(model="m", input="hi") as stream:
        response = await stream.get_final_response()
    assert response.output_text.startswith("You said: “hi”.")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_is_cut_at_max_output_tokens(openai: AsyncOpenAI, stream: bool) -> None:
    if stream:
        events = await streamed(openai, input="hi", max_output_tokens=4)
        assert events[-1].type == "response.incomplete"
        response: Response = events[-1].response
    else:
        response = await openai.responses.create(model="m", input="hi", max_output_tokens=4)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert (response.output_text, response.usage.output_tokens) == ("You said: “", 4)


async def test_a_function_call_is_streamed_and_its_result_is_quoted(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"tool_calls": [{"name": "look_up", "arguments": {"q": "x"}}]})
    events = await streamed(openai, input="Look it up.", tools=[TOOL])
    call = events[-1].response.output[0]
    assert isinstance(call, ResponseFunctionToolCall)
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert (call.name, call.arguments, "".join(deltas)) == ("look_up", '{"q":"x"}', '{"q":"x"}')

    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look it up."}]},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "42"},
    ]
    second = await openai.responses.create(model="m", input=items, tools=[TOOL])
    assert second.output_text.startswith("The tool answered: “42”. You said: “Look it up.”.")


async def test_a_refusal_is_a_part_of_its_own(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"faults": [{"finish": "refusal", "times": 2}]})
    events = await streamed(openai, input="hi")
    whole = await openai.responses.create(model="m", input="hi")
    assert "response.refusal.delta" in [event.type for event in events]
    refusals: Any = [response.output[0] for response in (events[-1].response, whole)]
    assert {refusal.content[0].refusal for refusal in refusals} == {"I can't help with that."}


async def test_a_content_filter_leaves_the_response_incomplete(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"faults": [{"finish": "content_filter"}]})
    response = await openai.responses.create(model="m", input="hi")
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "content_filter")


async def test_input_tokens_are_counted_without_a_call(openai: AsyncOpenAI, control: Control) -> None:
    counted = await openai.responses.input_tokens.count(model="m", input="hello out there")
    assert counted.input_tokens == count_chat(["hello out there"])
    assert control.served()["calls"] == 0


async def test_state_it_does_not_keep_is_refused(openai: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        await openai.responses.create(model="m", input="hi", previous_response_id="resp_1")
    assert caught.value.code == "previous_response_not_found"
