"""Both adapters against the stand-in model server: text, finish, usage, order, and how a call is aborted."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from agents.api import Completion, Message, Prompt
from shared.errors import UpstreamUnavailable
from tests.conftest import Eventually
from tests.models.conftest import KEY, PROMPT, MakeProvider, Provider, Scripted, answer, events
from workers.ledger import tokens

Behave = Callable[..., Awaitable[None]]
Served = Callable[[], Awaitable[dict[str, Any]]]


async def test_pieces_then_one_completion_that_agrees_with_the_providers_books(
    provider: Provider, kind: str, served: Served
) -> None:
    completion = await provider.ask()
    [booked] = (await served())["requests"]
    assert (completion.finish, completion.provider, completion.model) == ("stop", kind, provider.name)
    assert "What is my name?" in completion.text
    assert "My name is Ada." in completion.text  # the history was sent
    assert completion.request_id == booked["request_id"]
    assert completion.usage.input_tokens == booked["input_tokens"] == tokens.count_prompt(PROMPT)
    assert completion.usage.output_tokens == booked["output_tokens"] == tokens.count(completion.text)
    assert "estimated" not in completion.raw_usage
    assert booked["stream"]


async def test_cached_written_and_reasoning_tokens_are_parts_of_the_totals(
    provider: Provider, behave: Behave, served: Served
) -> None:
    await behave(cached_tokens=7, cache_write_tokens=5, reasoning_tokens=3)
    usage = (await provider.ask()).usage
    [booked] = (await served())["requests"]
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (7, 5, 3)
    assert usage.input_tokens == booked["input_tokens"] == tokens.count_prompt(PROMPT)
    assert usage.output_tokens == booked["output_tokens"]


async def test_max_tokens_is_sent_and_its_end_is_told(provider: Provider) -> None:
    completion = await provider.ask(Prompt("", (Message("user", "Count to a hundred"),), max_tokens=4))
    assert completion.finish == "length"
    assert completion.usage.output_tokens == 4


async def test_refusal_is_a_finish_of_its_own(provider: Provider, behave: Behave) -> None:
    await behave(faults=[{"finish": "refusal"}])
    assert (await provider.ask()).finish == "refusal"


async def test_content_filter_of_openai_is_a_finish_of_its_own(
    make_provider: MakeProvider, standin: Any, behave: Behave
) -> None:
    await behave(faults=[{"finish": "content_filter"}])
    assert (await make_provider("openai", standin.url).ask()).finish == "content_filter"


async def test_anthropic_is_never_sent_a_window_that_begins_with_a_reply(
    make_provider: MakeProvider, scripted: Scripted
) -> None:
    scripted.answers = [COMPLETE["anthropic"]]
    prompt = Prompt("Be brief.", (Message("assistant", "Hello."), Message("user", "Hi.")), max_tokens=50)
    await make_provider("anthropic", scripted.url).ask(prompt)
    assert b'"messages":[{"role":"user","content":"Hi."}]' in scripted.requests[0]


async def test_closing_the_stream_early_aborts_the_call_at_the_provider(
    provider: Provider, behave: Behave, served: Served, eventually: Eventually
) -> None:
    await behave(tokens_per_s=50, output_tokens=500)
    async with aclosing(provider.adapter.stream(PROMPT, model=provider.name, timeout_s=120)) as pieces:
        assert isinstance(await anext(pieces), str)

    async def aborted() -> dict[str, Any] | None:
        return next((each for each in (await served())["requests"] if each["status"] == "aborted"), None)

    booked = await eventually(aborted)
    assert booked is not None
    assert 1 <= booked["output_tokens"] < 400


async def test_cancelling_the_task_aborts_the_call_and_stays_a_cancellation(
    provider: Provider, behave: Behave, served: Served, eventually: Eventually
) -> None:
    await behave(faults=["hang"])
    task = asyncio.create_task(provider.ask())

    async def calls_running() -> int:
        return int((await served())["concurrency"])

    assert await eventually(calls_running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def none_running() -> bool:
        return await calls_running() == 0

    assert await eventually(none_running)


async def test_connections_are_used_again(make_provider: MakeProvider, kind: str, scripted: Scripted) -> None:
    scripted.close_after = False
    scripted.answers = [COMPLETE[kind]]
    provider = make_provider(kind, scripted.url)
    for _ in range(3):
        assert (await provider.ask()).text == "Hi"
    assert (len(scripted.requests), scripted.connections) == (3, 1)


async def test_one_process_holds_hundreds_of_streams(provider: Provider, behave: Behave, served: Served) -> None:
    await behave(gather=300, output_tokens=3)
    completions = await asyncio.gather(*(provider.ask(timeout_s=120) for _ in range(300)))
    assert {completion.usage.output_tokens for completion in completions} == {3}
    assert (await served())["concurrency_peak"] == 300


async def test_request_carries_the_key_the_user_and_one_limit(
    make_provider: MakeProvider, kind: str, scripted: Scripted
) -> None:
    scripted.answers = [COMPLETE[kind]]
    await make_provider(kind, scripted.url).ask(user="u" * 100)
    [request] = scripted.requests
    assert f"Bearer {KEY}".encode() in request
    assert b'"max_tokens":200' in request
    assert b"max_completion_tokens" not in request
    assert b"u" * 65 not in request  # a long id is hashed
    assert (b'"metadata":{"user_id":"' if kind == "anthropic" else b'"user":"') in request


async def test_system_prompt_is_marked_for_anthropics_cache(make_provider: MakeProvider, scripted: Scripted) -> None:
    scripted.answers = [COMPLETE["anthropic"]]
    await make_provider("anthropic", scripted.url).ask()
    assert (
        b'"system":[{"type":"text","text":"You are brief.","cache_control":{"type":"ephemeral"}}]'
        in (scripted.requests[0])
    )


COMPLETE = {
    "openai": events(
        '{"choices":[{"index":0,"delta":{"content":"Hi"}}],"model":"m"}',
        '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        '{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}',
        "[DONE]",
    ),
    "anthropic": events(
        '{"type":"message_start","message":{"model":"m","usage":{"input_tokens":9,"output_tokens":0}}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
        '{"type":"ping"}',
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":0}}',
        '{"type":"message_stop"}',
    ),
}


async def test_text_is_shown_though_what_arrives_with_it_is_broken(
    make_provider: MakeProvider, kind: str, scripted: Scripted
) -> None:
    """Whether any was shown decides if another model may be asked, and what a lost call is taken to have cost."""
    [whole] = COMPLETE[kind]
    body = whole.partition(b"\r\n\r\n")[2]
    before, hi, after = body.partition(b"Hi")
    scripted.answers = [answer(before + hi + after.split(b"\n\n")[0] + b"\n\ndata: {broken\n\n")]
    provider = make_provider(kind, scripted.url)
    pieces: list[str | Completion] = []

    async def ask() -> None:
        async with aclosing(provider.adapter.stream(PROMPT, model=provider.name, timeout_s=10)) as stream:
            async for piece in stream:
                pieces.append(piece)

    with pytest.raises(UpstreamUnavailable):
        await ask()
    assert pieces == ["Hi"]


async def test_an_explicit_zero_is_an_account(make_provider: MakeProvider, kind: str, scripted: Scripted) -> None:
    scripted.answers = [COMPLETE[kind]]
    completion = await make_provider(kind, scripted.url).ask()
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (9, 0)
    assert "estimated" not in completion.raw_usage


async def test_missing_usage_is_counted_and_marked(make_provider: MakeProvider, scripted: Scripted) -> None:
    scripted.answers = [
        events('{"choices":[{"delta":{"content":"Hello there"},"finish_reason":"stop"}]}', "[DONE]"),
    ]
    completion = await make_provider("openai", scripted.url).ask()
    assert completion.usage.input_tokens == tokens.count_prompt(PROMPT)
    assert completion.usage.output_tokens == 2
    assert completion.raw_usage == {"estimated": True}


async def test_refusals_own_words_become_the_text_but_are_not_streamed(
    make_provider: MakeProvider, scripted: Scripted
) -> None:
    scripted.answers = [
        events('{"choices":[{"delta":{"refusal":"I cannot."}}]}', '{"choices":[{"delta":{},"finish_reason":"stop"}]}'),
    ]
    provider = make_provider("openai", scripted.url)
    async with aclosing(provider.adapter.stream(PROMPT, model="m", timeout_s=5)) as pieces:
        [completion] = [piece async for piece in pieces]
    assert isinstance(completion, Completion)
    assert (completion.text, completion.finish) == ("I cannot.", "refusal")


async def test_server_that_refuses_the_limits_name_is_asked_with_the_other_from_then_on(
    make_provider: MakeProvider, scripted: Scripted
) -> None:
    refused = b'{"error":{"message":"Unsupported","param":"max_tokens","code":"unsupported_parameter"}}'
    scripted.close_after = False
    scripted.answers = [answer(refused, status="400 Bad Request"), COMPLETE["openai"]]
    provider = make_provider("openai", scripted.url)
    assert (await provider.ask()).text == "Hi"
    assert (await provider.ask()).text == "Hi"
    limits = [(b'"max_tokens"' in each, b'"max_completion_tokens"' in each) for each in scripted.requests]
    assert limits == [(True, False), (False, True), (False, True)]
