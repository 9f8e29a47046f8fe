"""The Responses API through the unmodified SDK, strict validation on."""

import asyncio

from openai import AsyncOpenAI, OpenAI

from tests.openai.harness import Product, ended, job_id_of


async def test_a_plain_request_waits_for_its_answer(product: Product, client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="support", input="How do I reset my password?", metadata={"a": "1"})
    assert (response.status, response.model, response.metadata) == ("completed", "support", {"a": "1"})
    assert "How do I reset my password?" in response.output_text
    assert response.background is False
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    (row,) = await product.deployment.rows("llm_calls", job_id_of(response))
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (row["input_tokens"], row["output_tokens"])
    assert response.usage.total_tokens == row["input_tokens"] + row["output_tokens"]


async def test_usage_tells_cached_and_reasoning_tokens(product: Product, client: AsyncOpenAI) -> None:
    await product.deployment.behave({"cached_tokens": 64, "reasoning_tokens": 17})
    usage = (await client.responses.create(model="support", input="hello")).usage
    assert usage is not None
    assert usage.input_tokens_details.cached_tokens == 64
    assert usage.output_tokens_details.reasoning_tokens == 17


async def test_the_sync_sdk_does_the_same(product: Product, sync_client: OpenAI) -> None:
    response = await asyncio.to_thread(lambda: sync_client.responses.create(model="support", input="hello"))
    assert response.status == "completed"
    assert "hello" in response.output_text


async def test_a_background_request_answers_at_once_and_is_retrieved_later(
    client: AsyncOpenAI, product: Product
) -> None:
    response = await client.responses.create(model="sales", input="hello", background=True)
    assert (response.background, response.model) == (True, "sales")
    assert response.status in ("queued", "in_progress", "completed")
    done = await ended(client, response.id)
    assert (done.id, done.status, done.background) == (response.id, "completed", True)
    assert "hello" in done.output_text


async def test_instructions_reach_the_model_behind_the_agents_own(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"reply": "{system}"})
    response = await client.responses.create(
        model="support",
        instructions="Answer like a pirate.",
        input=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        max_output_tokens=2_000,
    )
    text = response.output_text
    assert text.startswith("You are a customer support agent.")
    assert text.endswith("Answer like a pirate.\n\nBe brief.")
    assert response.instructions == "Answer like a pirate.\n\nBe brief."


async def test_a_bound_is_kept_and_said(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"output_tokens": 400})
    response = await client.responses.create(model="support", input="hello", max_output_tokens=20)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 20
    assert response.output_text


async def test_the_previous_response_is_gone_on_with(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"reply": "{count} {previous}"})
    first = await client.responses.create(model="support", input="one")
    second = await client.responses.create(model="support", input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.conversation is not None
    assert second.conversation == first.conversation
    assert second.output_text == "2 one"


async def test_a_conversation_is_named_by_the_caller_or_by_what_a_response_says(
    client: AsyncOpenAI, product: Product
) -> None:
    await product.deployment.behave({"reply": "{count}"})
    first = await client.responses.create(model="support", input="one", conversation="order-77")
    second = await client.responses.create(model="support", input="two", conversation={"id": "order-77"})
    assert (first.conversation, second.output_text) == (second.conversation, "2")
    made = await client.responses.create(model="support", input="one")
    assert made.conversation is not None
    assert made.conversation.id.startswith("conv_")
    again = await client.responses.create(model="support", input="two", conversation=made.conversation.id)
    assert (again.conversation, again.output_text) == (made.conversation, "2")
