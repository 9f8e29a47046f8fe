"""What can be done with a response once it is there: look, cancel, delete, list what was asked."""

import openai
import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from shared import keys
from tests.conftest import Eventually
from tests.openai.harness import Product, ended, job_id_of
from tests.turn.deployment import Deployment


async def test_a_response_is_the_same_from_redis_and_from_postgres(
    client: AsyncOpenAI, product: Product, redis: Redis
) -> None:
    first = await client.responses.create(model="support", input="hello")
    response = await client.responses.create(
        model="support",
        input=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "again"}],
        previous_response_id=first.id,
        max_output_tokens=100,
        metadata={"order": "7"},
        user="u1",
        background=True,
    )
    known = await ended(client, response.id)
    assert await redis.delete(keys.job(job_id_of(response))) == 1
    archived = await client.responses.retrieve(response.id)
    assert archived == known
    assert (archived.instructions, archived.background, archived.user) == ("Be kind.", True, "u1")
    assert (archived.previous_response_id, archived.max_output_tokens) == (first.id, 100)


async def test_a_waiting_response_is_cancelled_at_once_and_again(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="support", input="hello", background=True)
    assert response.status == "queued"
    for _ in range(2):
        cancelled = await client.responses.cancel(response.id)
        assert (cancelled.id, cancelled.status, cancelled.output) == (response.id, "cancelled", [])


async def test_a_running_response_is_cancelled(client: AsyncOpenAI, product: Product, eventually: Eventually) -> None:
    await product.deployment.behave({"tokens_per_s": 5, "output_tokens": 400})
    response = await client.responses.create(model="support", input="a long one", background=True)

    async def running() -> bool:
        return (await client.responses.retrieve(response.id)).status == "in_progress"

    await eventually(running)
    cancelled = await client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    (row,) = await product.deployment.rows("llm_calls", job_id_of(response))
    assert row["status"] == "aborted"


async def test_cancelling_what_is_done_changes_nothing(client: AsyncOpenAI, product: Product) -> None:
    response = await client.responses.create(model="support", input="hello")
    assert await client.responses.cancel(response.id) == response


async def test_a_deleted_response_is_gone_for_its_readers_and_stays_in_conversation_and_books(
    client: AsyncOpenAI, product: Product, redis: Redis
) -> None:
    await product.deployment.behave({"reply": "{count} {previous}"})
    response = await client.responses.create(model="support", input="one", conversation="c")
    await client.responses.delete(response.id)
    for _ in range(2):  # by Redis, then by Postgres
        for call in (
            client.responses.retrieve(response.id),
            client.responses.delete(response.id),
            client.responses.cancel(response.id),
            client.responses.create(model="support", input="two", previous_response_id=response.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await call
        await redis.delete(keys.job(job_id_of(response)))
    assert (await product.deployment.rows("jobs", job_id_of(response)))[0]["state"] == "succeeded"
    assert len(await product.deployment.rows("llm_calls", job_id_of(response))) == 1
    after = await client.responses.create(model="support", input="two", conversation="c")
    assert after.output_text == "2 one"


async def test_a_running_response_can_be_deleted_and_its_job_ends_all_the_same(
    client: AsyncOpenAI, deployment: Deployment
) -> None:
    response = await client.responses.create(model="support", input="one", background=True)
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    async with deployment.worker():
        assert (await deployment.ended(job_id_of(response))).state == "succeeded"


INPUT = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "eins", "annotations": []}]},
    {"role": "user", "content": [{"type": "input_text", "text": "two"}, {"type": "input_text", "text": "three"}]},
]


async def test_what_was_asked_is_listed_before_and_after_the_end(
    client: AsyncOpenAI, deployment: Deployment, redis: Redis
) -> None:
    response = await client.responses.create(model="support", input=INPUT, background=True)  # type: ignore[arg-type]

    async def listed(**query: object) -> list[tuple[str, str]]:
        page = await client.responses.input_items.list(response.id, **query)  # type: ignore[arg-type]
        return [(item.role, item.content[0].text) async for item in page]  # type: ignore[union-attr]

    asked = [("user", "one"), ("assistant", "eins"), ("user", "two\nthree")]
    assert await listed(order="asc") == asked
    async with deployment.worker():
        await ended(client, response.id)
    assert await listed(order="asc") == asked
    assert await listed() == asked[::-1]
    assert await listed(order="asc", limit=1) == asked, "page after page"
    page = await client.responses.input_items.list(response.id, order="asc", limit=2)
    assert page.has_more
    assert [item.id for item in page.data] == [page.first_id, page.last_id]
    rest = await client.responses.input_items.list(response.id, order="asc", after=page.last_id)
    assert [item.content[0].text for item in rest.data] == ["two\nthree"]  # type: ignore[union-attr]


async def test_what_was_asked_of_a_job_that_never_started_is_listed_from_the_books(
    client: AsyncOpenAI, deployment: Deployment, eventually: Eventually
) -> None:
    response = await client.responses.create(model="support", input=INPUT, background=True)  # type: ignore[arg-type]
    await client.responses.cancel(response.id)
    with pytest.raises(openai.InternalServerError):  # 503: on its way to Postgres
        await client.responses.input_items.list(response.id)
    async with deployment.worker():

        async def booked() -> bool:
            return bool(await deployment.rows("jobs", job_id_of(response)))

        await eventually(booked)
    page = await client.responses.input_items.list(response.id, order="asc")
    assert len(page.data) == 3


async def test_messages_given_along_are_seen_in_this_turn_and_in_those_after_it(
    client: AsyncOpenAI, product: Product
) -> None:
    await product.deployment.behave({"reply": "{count} {previous}"})
    first = await client.responses.create(model="support", input=INPUT)  # type: ignore[arg-type]
    assert first.output_text == "2 one"
    after = await client.responses.create(model="support", input="four", previous_response_id=first.id)
    assert after.output_text == "3 two\nthree"


@pytest.mark.parametrize("response_id", ["resp_0192f0c1-7a3c-7e11-9b1e-2f6d7c1a0b42", "resp_x", "0", "chatcmpl-1"])
async def test_unknown_responses_are_404_everywhere(client: AsyncOpenAI, response_id: str) -> None:
    calls = [
        client.responses.retrieve(response_id),
        client.responses.retrieve(response_id, stream=True),
        client.responses.cancel(response_id),
        client.responses.delete(response_id),
        _list(client, response_id),
    ]
    for call in calls:
        with pytest.raises(openai.NotFoundError) as error:
            await call
        assert (error.value.code, error.value.param) == ("response_not_found", "id")


async def test_another_tenants_response_is_unknown(
    client: AsyncOpenAI, stranger: AsyncOpenAI, product: Product, redis: Redis
) -> None:
    response = await client.responses.create(model="support", input="mine")
    for _ in range(2):  # by Redis, then by Postgres
        for call in (
            stranger.responses.retrieve(response.id),
            stranger.responses.cancel(response.id),
            stranger.responses.delete(response.id),
            _list(stranger, response.id),
            stranger.responses.create(model="support", input="hello", previous_response_id=response.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await call
        await redis.delete(keys.job(job_id_of(response)))
    assert (await client.responses.retrieve(response.id)).output_text == response.output_text


async def test_a_job_of_our_own_api_can_be_looked_at_as_a_response(client: AsyncOpenAI, product: Product) -> None:
    async with product.server.client("sk-of-acme-tests") as native:
        answer = await native.post("/v1/agents/support/messages", json={"message": "hi", "metadata": {"n": 1}})
    response = await ended(client, f"resp_{answer.json()['id']}")
    assert (response.status, response.metadata) == ("completed", {"n": "1"})


async def _list(client: AsyncOpenAI, response_id: str) -> None:
    await client.responses.input_items.list(response_id)
