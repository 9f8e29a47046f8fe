"""Faults as the real SDKs see them: each becomes the error class that the provider's own would."""

import asyncio
import json
import time
from typing import Any

import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.conftest import PATIENCE_S, Eventually
from tests.standin.conftest import Control

GIVES_UP_S = 1.0
"""A client's patience with an answer that never comes: the question has arrived by then."""
HI: Any = [{"role": "user", "content": "hi"}]


async def chat(client: AsyncOpenAI, text: str = "hi", pieces: list[str] | None = None) -> str:
    """The text of a streamed chat completion; raises what the SDK raises on the way, `pieces` has what came before."""
    pieces = [] if pieces is None else pieces
    messages: Any = [{"role": "user", "content": text}]
    async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True):
        pieces.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)
    return "".join(pieces)


async def message(client: AsyncAnthropic) -> str:
    pieces: list[str] = []
    async for event in await client.messages.create(model="m", max_tokens=99, messages=HI, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            pieces.append(event.delta.text)
    return "".join(pieces)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai_sdk.BadRequestError),
        (404, openai_sdk.NotFoundError),
        (429, openai_sdk.RateLimitError),
        (500, openai_sdk.InternalServerError),
        (503, openai_sdk.InternalServerError),
    ],
)
async def test_a_status_becomes_the_openai_sdks_error(
    openai: AsyncOpenAI, control: Control, status: int, error: type[openai_sdk.APIStatusError]
) -> None:
    control.behave({"faults": [{"status": status}]})
    with pytest.raises(error) as caught:
        await chat(openai)
    (entry,) = control.entries(status="fault", fault=str(status))
    assert (caught.value.status_code, caught.value.request_id) == (status, entry["request_id"])
    assert (entry["input_tokens"], entry["output_tokens"]) == (0, 0)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (403, anthropic_sdk.PermissionDeniedError, "permission_error"),
        (429, anthropic_sdk.RateLimitError, "rate_limit_error"),
        (500, anthropic_sdk.InternalServerError, "api_error"),
        (529, anthropic_sdk.InternalServerError, "overloaded_error"),
    ],
)
async def test_a_status_becomes_the_anthropic_sdks_error(
    anthropic: AsyncAnthropic, control: Control, status: int, error: type[anthropic_sdk.APIStatusError], kind: str
) -> None:
    control.behave({"faults": [{"status": status}]})
    with pytest.raises(error) as caught:
        await message(anthropic)
    (entry,) = control.entries(status="fault")
    assert (caught.value.type, caught.value.request_id) == (kind, entry["request_id"])


async def test_faults_are_used_up_in_order_and_then_it_answers(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"faults": [{"status": 429, "retry_after_s": 1.5, "times": 2}, {"status": 500}]})
    with pytest.raises(openai_sdk.RateLimitError) as caught:
        await chat(openai)
    assert caught.value.response.headers["retry-after"] == "1.5"
    with pytest.raises(openai_sdk.RateLimitError):
        await chat(openai)
    with pytest.raises(openai_sdk.InternalServerError):
        await chat(openai)
    assert await chat(openai) == "You said: “hi”. This conversation has 1 user message."
    assert control.served()["faults"] == {"429": 2, "500": 1}


async def test_a_fault_may_carry_a_code_and_headers(
    openai: AsyncOpenAI, anthropic: AsyncAnthropic, control: Control
) -> None:
    spent = {"status": 429, "headers": {"x-should-retry": "false"}}
    control.behave(
        {"faults": [spent | {"code": "insufficient_quota"}, spent | {"code": "enforced_spend_limit_reached"}]}
    )
    with pytest.raises(openai_sdk.RateLimitError) as quota:
        await chat(openai)
    assert (quota.value.code, quota.value.type) == ("insufficient_quota", "insufficient_quota")
    assert quota.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(anthropic_sdk.RateLimitError) as limit:
        await message(anthropic)
    assert limit.value.error_code == "enforced_spend_limit_reached"


async def test_a_hang_lasts_until_the_caller_gives_up(
    openai: AsyncOpenAI, control: Control, eventually: Eventually
) -> None:
    control.behave({"faults": ["hang"]})
    with pytest.raises(openai_sdk.APITimeoutError):
        await chat(openai.with_options(timeout=GIVES_UP_S))
    (entry,) = await eventually(lambda: control.entries(status="hung", fault="hang"))
    assert entry["input_tokens"] > 0
    assert entry["output_tokens"] == 0
    assert control.served()["concurrency"] == 0


async def test_a_cut_stream_ends_without_its_terminal_event(
    openai: AsyncOpenAI, anthropic: AsyncAnthropic, control: Control
) -> None:
    control.behave({"output_tokens": 20, "faults": [{"cut_stream": True, "times": 2}]})
    with pytest.raises(openai_sdk.APIConnectionError):
        await chat(openai)
    with pytest.raises(httpx2.RemoteProtocolError):  # this SDK does not translate what happens within a stream
        await message(anthropic)
    assert [entry["output_tokens"] for entry in control.entries(status="cut")] == [10, 10]


async def test_a_stream_can_end_early_without_an_error_of_the_connection(
    openai: AsyncOpenAI, anthropic: AsyncAnthropic, control: Control
) -> None:
    control.behave({"reply": "one two three four", "faults": [{"end_early": True, "times": 3}]})
    assert await chat(openai) == "one two"
    assert await message(anthropic) == "one two"
    with pytest.raises((openai_sdk.APIError, json.JSONDecodeError)):
        await openai.chat.completions.create(model="m", messages=HI)
    assert [entry["output_tokens"] for entry in control.entries(status="cut")] == [2, 2, 4]


async def test_a_cut_stream_bills_what_the_caller_was_sent(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"output_tokens": 20, "reasoning_tokens": 4, "faults": [{"cut_stream": True, "after_tokens": 3}]})
    pieces: list[str] = []
    with pytest.raises(openai_sdk.APIConnectionError):
        await chat(openai, pieces=pieces)
    (entry,) = control.entries(status="cut")
    assert len(pieces) == 3
    assert (entry["output_tokens"], entry["reasoning_tokens"]) == (7, 4)


async def test_a_stalled_stream_falls_silent_and_stays_open(
    openai: AsyncOpenAI, control: Control, eventually: Eventually
) -> None:
    control.behave({"output_tokens": 8, "faults": [{"stall_stream": True, "after_tokens": 2}]})
    with pytest.raises(openai_sdk.APITimeoutError):
        await chat(openai.with_options(timeout=GIVES_UP_S))
    (entry,) = await eventually(lambda: control.entries(status="hung"))
    assert entry["output_tokens"] == 2


async def test_an_error_within_a_stream_has_the_providers_shape(
    openai: AsyncOpenAI, anthropic: AsyncAnthropic, control: Control
) -> None:
    control.behave({"faults": [{"stream_error": True, "times": 3}]})
    with pytest.raises(openai_sdk.APIError, match="server had an error"):
        await chat(openai)
    with pytest.raises(anthropic_sdk.APIStatusError) as caught:
        await message(anthropic)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    events = [event async for event in await openai.responses.create(model="m", input="hi", stream=True)]
    assert events[-1].type == "error"


async def test_an_answer_can_be_malformed(openai: AsyncOpenAI, anthropic: AsyncAnthropic, control: Control) -> None:
    control.behave({"faults": [{"malformed": True, "times": 3}]})
    with pytest.raises(json.JSONDecodeError):
        await chat(openai)
    with pytest.raises(json.JSONDecodeError):
        await message(anthropic)
    with pytest.raises((openai_sdk.APIError, json.JSONDecodeError)):
        await openai.chat.completions.create(model="m", messages=HI)
    assert len(control.entries(status="fault", fault="malformed")) == 3


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        ("cut_stream", openai_sdk.APIConnectionError, "cut"),
        ("stall_stream", openai_sdk.APITimeoutError, "hung"),
        ("stream_error", openai_sdk.InternalServerError, "fault"),
    ],
)
async def test_stream_faults_have_a_meaning_without_a_stream(
    openai: AsyncOpenAI,
    control: Control,
    eventually: Eventually,
    fault: str,
    error: type[Exception],
    status: str,
) -> None:
    control.behave({"faults": [fault]})
    with pytest.raises(error):
        await openai.with_options(timeout=GIVES_UP_S).chat.completions.create(model="m", messages=HI)
    assert await eventually(lambda: control.entries(status=status, fault=fault))


@pytest.mark.parametrize(("finish", "reason"), [("length", "length"), ("content_filter", "content_filter")])
async def test_a_finish_can_be_forced(openai: AsyncOpenAI, control: Control, finish: str, reason: str) -> None:
    control.behave({"faults": [{"finish": finish}]})
    completion = await openai.chat.completions.create(model="m", messages=HI)
    assert completion.choices[0].finish_reason == reason
    assert len(control.entries(status="served")) == 1


async def test_a_refusal_is_told_by_its_own_field(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"faults": [{"finish": "refusal"}]})
    completion = await openai.chat.completions.create(model="m", messages=HI)
    assert completion.choices[0].message.content is None
    assert completion.choices[0].message.refusal == "I can't help with that."


async def test_a_caller_that_leaves_a_stream_is_billed_what_it_was_sent(
    openai: AsyncOpenAI, control: Control, eventually: Eventually
) -> None:
    control.behave({"output_tokens": 100, "tokens_per_s": 5})
    stream = await openai.chat.completions.create(model="m", messages=HI, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    (entry,) = await eventually(lambda: control.entries(status="aborted"))
    assert 1 <= entry["output_tokens"] < 20
    assert entry["input_tokens"] > 0


async def test_latency_and_pace_are_kept(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"latency_ms": 100, "ttft_ms": 100, "tokens_per_s": 50, "output_tokens": 6})
    started = time.monotonic()
    at_s: list[float] = []
    async for chunk in await openai.chat.completions.create(model="m", messages=HI, stream=True):
        if chunk.choices[0].delta.content:
            at_s.append(time.monotonic() - started)
    assert len(at_s) == 6
    assert at_s[0] >= 0.2
    assert at_s[-1] - at_s[0] >= 0.09, "five more tokens at 50 a second"
    assert at_s[-1] < 20


async def test_held_calls_are_answered_when_the_rules_are_replaced_and_by_those_they_came_under(
    openai: AsyncOpenAI, control: Control, eventually: Eventually
) -> None:
    control.behave({"match": "first", "held": True, "reply": "at last"}, {})
    held = asyncio.create_task(chat(openai, "first"))
    await eventually(lambda: control.served()["concurrency"] == 1)
    assert "second" in await chat(openai, "second"), "only that one"
    assert not held.done()
    control.behave({"reply": "another"})
    assert await asyncio.wait_for(held, PATIENCE_S) == "at last"
    control.behave({"held": True})
    left = asyncio.create_task(chat(openai, "third"))
    await eventually(lambda: control.served()["concurrency"] == 1)
    left.cancel()
    await asyncio.wait([left])
    assert await eventually(lambda: control.entries(status="aborted")), "who waits no more is let go"
    assert control.served()["concurrency"] == 0


async def test_gathered_calls_are_answered_once_all_are_there(
    openai: AsyncOpenAI, control: Control, eventually: Eventually
) -> None:
    control.behave({"gather": 3, "reply": "all here"})
    early = [asyncio.create_task(chat(openai, "hi")) for _ in range(2)]
    await eventually(lambda: control.served()["concurrency"] == 2)
    assert not any(call.done() for call in early)
    assert await chat(openai, "and me") == "all here"
    assert await asyncio.gather(*early) == ["all here", "all here"]


async def test_rules_steer_single_jobs_side_by_side(openai: AsyncOpenAI, control: Control) -> None:
    control.behave({"match": "job 1", "reply": "first"}, {"model": "other", "reply": "never"}, {"reply": "{last}!"})
    replies = await asyncio.gather(*(chat(openai, f"this is job {number}") for number in (1, 2)))
    assert replies == ["first", "this is job 2!"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"])
async def test_a_call_without_a_key_is_refused_in_the_providers_shape(control: Control, path: str) -> None:
    async with httpx2.AsyncClient(base_url=control.url) as client:
        answer = await client.post(path, json={}, headers={"authorization": "Bearer"})
    assert answer.status_code == 401
    error = answer.json()["error"]
    if path == "/v1/messages":
        assert (error["type"], answer.json()["request_id"]) == ("authentication_error", answer.headers["request-id"])
    else:
        assert (error["code"], answer.headers["x-request-id"][:4]) == ("invalid_api_key", "req_")
    assert control.served()["calls"] == 0


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model":"m"}', b'{"model":"","messages":[]}', b"\xff"])
async def test_an_unreadable_request_is_refused_and_not_booked(control: Control, body: bytes) -> None:
    async with httpx2.AsyncClient(base_url=control.url, headers={"x-api-key": "k"}) as client:
        answers = [await client.post(path, content=body) for path in ("/v1/chat/completions", "/v1/messages")]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert {answer.json()["error"]["type"] for answer in answers} == {"invalid_request_error"}
    assert control.served()["calls"] == 0
