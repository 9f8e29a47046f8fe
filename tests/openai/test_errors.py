"""Errors in OpenAI's form, as its SDK raises them."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from ingress.openai.errors import as_openai, openai_body
from ingress.problems import problem_of
from shared.errors import BudgetExhausted
from tests.ingress.harness import Served, served
from tests.openai.harness import KEY, Product
from tests.turn.deployment import Deployment

HELLO: Any = [{"role": "user", "content": "hello"}]
IMAGE = {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"}


async def test_without_a_valid_key_it_is_401(server: Served) -> None:
    async with AsyncOpenAI(api_key="sk-nobody", base_url=f"{server.url}/v1", max_retries=0) as nobody:
        for call in (
            nobody.models.list(),
            nobody.responses.create(model="support", input="hello"),
            nobody.chat.completions.create(model="support", messages=HELLO),
        ):
            with pytest.raises(openai.AuthenticationError) as error:
                await call
            assert error.value.code == "invalid_api_key"
            assert error.value.request_id


async def test_an_agent_that_does_not_exist_is_404(client: AsyncOpenAI) -> None:
    for call in (
        client.responses.create(model="gpt-5", input="hello"),
        client.chat.completions.create(model="gpt-5", messages=HELLO),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            await call
        assert (error.value.code, error.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("param", "code", "given"),
    [
        ("input[0].content[0].type", "unsupported_parameter", {"input": [{"role": "user", "content": [IMAGE]}]}),
        ("input[0].type", "unsupported_parameter", {"input": [{"type": "function_call_output", "output": "x"}]}),
        ("input", "invalid_value", {"input": [{"role": "assistant", "content": "hello"}]}),
        ("input", "invalid_value", {"input": "  "}),
        ("input", "invalid_value", {"input": 7}),
        ("input", "string_above_max_length", {"input": "x" * 32_001}),
        ("input[0].role", "invalid_value", {"input": [{"role": "king", "content": "hello"}]}),
        ("tools", "unsupported_parameter", {"tools": [{"type": "web_search"}]}),
        ("tool_choice", "unsupported_parameter", {"tool_choice": "required"}),
        ("text.format.type", "invalid_value", {"text": {"format": {"type": "json_object"}}}),
        ("top_logprobs", "unsupported_parameter", {"top_logprobs": 3}),
        ("include", "unsupported_parameter", {"include": ["message.output_text.logprobs"]}),
        ("prompt", "unsupported_parameter", {"prompt": {"id": "pmpt_1"}}),
        ("metadata.a", "invalid_value", {"metadata": {"a": 7}}),
        ("metadata", "invalid_value", {"metadata": {str(n): "x" for n in range(17)}}),
        ("colour", "unknown_parameter", {"extra_body": {"colour": "red"}}),
        ("max_output_tokens", "invalid_value", {"max_output_tokens": 0}),
        ("conversation", "invalid_value", {"conversation": {"id": ""}}),
        ("previous_response_id", "invalid_value", {"previous_response_id": "resp_1", "conversation": "c"}),
        ("model", "missing_required_parameter", {"model": openai.omit}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_a_response_cannot_be_asked_is_named(
    client: AsyncOpenAI, redis: Redis, param: str, code: str, given: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.create(**{"model": "support", "input": "hello", **given})
    assert (error.value.param, error.value.code, error.value.type) == (param, code, "invalid_request_error")
    assert await redis.keys("arq:job:*") == []


CHAT_PART = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("param", "given"),
    [
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [CHAT_PART]}]}),
        ("messages[0].role", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}),
        ("messages[0].tool_calls", {"messages": [{"role": "assistant", "tool_calls": [CALL]}, *HELLO]}),
        ("messages[0].name", {"messages": [{"role": "user", "name": "Ann", "content": "hello"}]}),
        ("n", {"n": 2}),
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("logprobs", {"logprobs": True}),
        ("stop", {"stop": "."}),
        ("logit_bias", {"logit_bias": {"50256": -100}}),
        ("modalities", {"modalities": ["text", "audio"]}),
        ("audio", {"audio": {"format": "wav", "voice": "alloy"}}),
        ("web_search_options", {"web_search_options": {}}),
    ],
)
async def test_what_a_chat_cannot_be_asked_is_named(
    client: AsyncOpenAI, redis: Redis, param: str, given: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.chat.completions.create(**{"model": "support", "messages": HELLO, **given})
    assert (error.value.param, error.value.code) == (param, "unsupported_parameter")
    assert await redis.keys("arq:job:*") == []


async def test_every_fault_is_told_at_once(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"tools: .* n: .*messages\[0\].content"):
        await client.chat.completions.create(
            model="support",
            n=2,
            tools=[{"type": "function", "function": {"name": "f"}}],
            messages=[{"role": "user", "content": [CHAT_PART]}],  # type: ignore[list-item]
        )


async def test_what_changes_nothing_is_taken(client: AsyncOpenAI, product: Product) -> None:
    response = await client.responses.create(
        model="support",
        input="hello",
        temperature=0.3,
        top_p=0.9,
        store=False,
        truncation="auto",
        service_tier="flex",
        parallel_tool_calls=True,
        reasoning={"effort": "low"},
        include=["reasoning.encrypted_content"],
        tools=[],
        tool_choice="auto",
        text={"format": {"type": "text"}, "verbosity": "low"},
        top_logprobs=0,
        prompt_cache_key="k",
        safety_identifier="u9",
    )
    assert (response.status, response.user) == ("completed", "u9")
    completion = await client.chat.completions.create(
        model="support",
        messages=HELLO,
        temperature=0.3,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        n=1,
        logprobs=False,
        response_format={"type": "text"},
        modalities=["text"],
        reasoning_effort="low",
        verbosity="low",
        store=True,
        stop=[],
        logit_bias={},
    )
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses", 405),
        ("PUT", "/v1/responses/resp_1", 405),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/responses/resp_1/unknown", 404),
    ],
)
async def test_what_the_router_refuses_has_the_same_form(server: Served, method: str, path: str, status: int) -> None:
    async with server.client(KEY) as raw:
        response = await raw.request(method, path)
    assert response.status_code == status
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}


async def test_our_own_routes_keep_problem_json(server: Served) -> None:
    async with server.client(KEY) as raw:
        response = await raw.get("/v1/jobs/x")
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "a", "model": "b"}', b"\xff", b'"text"'])
async def test_a_body_that_is_no_json_object_is_400(server: Served, body: bytes) -> None:
    async with server.client(KEY) as raw:
        for path in ("/v1/responses", "/v1/chat/completions"):
            response = await raw.post(path, content=body)
            assert response.status_code == 400
            assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_that_is_too_large_is_413(server: Served) -> None:
    async with server.client(KEY) as raw:
        response = await raw.post("/v1/responses", content=b" " * 300_000)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        ({"faults": [{"status": 400}]}, openai.InternalServerError, "upstream_rejected"),
        ({"faults": [{"status": 429, "times": 1_000}]}, openai.RateLimitError, "rate_limit_exceeded"),
        ({"faults": [{"finish": "refusal"}]}, openai.BadRequestError, "refusal"),
    ],
)
async def test_a_plain_request_whose_job_fails_is_an_error_that_no_sdk_repeats(
    client: AsyncOpenAI, product: Product, behaviour: dict[str, Any], kind: type[openai.APIStatusError], code: str
) -> None:
    calls = (
        lambda: client.responses.create(model="support", input="hello"),
        lambda: client.chat.completions.create(model="support", messages=HELLO),
    )
    for call in calls:
        await product.deployment.behave(behaviour)
        with pytest.raises(kind) as error:
            await call()
        assert error.value.code == code
        assert error.value.response.headers["x-should-retry"] == "false"
        assert error.value.response.headers["location"].startswith("/v1/responses/resp_")


async def test_a_filtered_answer_is_incomplete(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"faults": [{"finish": "content_filter", "times": 2}]})
    response = await client.responses.create(model="support", input="hello")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
    completion = await client.chat.completions.create(model="support", messages=HELLO)
    assert (completion.choices[0].finish_reason, completion.choices[0].message.content) == ("content_filter", "")


async def test_reasoning_that_uses_up_a_callers_bound_is_incomplete_and_not_asked_again(
    client: AsyncOpenAI, product: Product
) -> None:
    await product.deployment.behave({"reasoning_tokens": 100})
    response = await client.responses.create(model="support", input="hello", max_output_tokens=50)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (await product.deployment.served())["calls"] == 1


async def test_an_answer_that_takes_too_long_is_504_and_its_job_goes_on(
    deployment: Deployment, settings: Any, redis: Redis
) -> None:
    async with (
        served(settings.model_copy(update={"openai_wait_max_s": 1})) as server,
        AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as client,
    ):
        for call in (
            client.responses.create(model="support", input="hello"),
            client.chat.completions.create(model="support", messages=HELLO),
        ):
            with pytest.raises(openai.InternalServerError) as error:
                await call
            assert (error.value.status_code, error.value.code) == (504, "timeout")
            assert error.value.response.headers["x-should-retry"] == "true"
            response_id = error.value.response.headers["location"].rpartition("/")[2]
            assert (await client.responses.retrieve(response_id)).status == "queued"


async def test_a_conversation_of_another_user_is_422(client: AsyncOpenAI, product: Product) -> None:
    await client.responses.create(model="support", input="hello", conversation="c", user="u1")
    with pytest.raises(openai.UnprocessableEntityError) as error:
        await client.responses.create(model="support", input="hello", conversation="c", user="u2")
    assert error.value.code == "conversation_owner"


async def test_a_busy_conversation_that_rejects_is_409_and_not_repeated(
    client: AsyncOpenAI, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = server.app.state.ingress.agents["support"]
    monkeypatch.setattr(type(agent), "policy", "reject")
    await client.responses.create(model="support", input="hello", conversation="c", background=True)
    with pytest.raises(openai.ConflictError) as error:
        await client.responses.create(model="support", input="hello", conversation="c", background=True)
    assert error.value.code == "conversation_busy"
    assert error.value.response.headers["x-should-retry"] == "false"


async def test_a_full_queue_is_503_with_the_time_to_wait(deployment: Deployment, settings: Any) -> None:
    async with (
        served(settings.model_copy(update={"max_queue_depth": 1})) as server,
        AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as client,
    ):
        await client.responses.create(model="support", input="hello", background=True)
        with pytest.raises(openai.InternalServerError) as error:
            await client.responses.create(model="support", input="hello", background=True)
    assert (error.value.status_code, error.value.code, error.value.type) == (503, "queue_full", "server_error")
    assert error.value.response.headers["retry-after"] == "5"


def test_a_spent_budget_is_what_openai_calls_insufficient_quota() -> None:
    told = as_openai(problem_of(BudgetExhausted("It is spent.", scope="tenant-month")))
    assert told.status == 429
    assert told.headers["x-should-retry"] == "false"
    assert openai_body(told)["error"]["code"] == "insufficient_quota"
