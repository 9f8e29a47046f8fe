"""`previous_response_id` of a response that is not the newest: a branch with what had been said until then."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from shared import keys
from tests.openai.harness import Product, ended, job_id_of
from tests.turn.deployment import Deployment


def conversation_of(response: Response) -> str:
    assert response.conversation is not None
    return response.conversation.id


async def ask(client: AsyncOpenAI, text: str, previous: Response | None = None, **more: Any) -> Response:
    named = {} if previous is None else {"previous_response_id": previous.id}
    return await client.responses.create(model="support", input=text, **named, **more)


COUNTED = {"reply": "{count} {previous}"}
"""The model says how many messages of the user it was shown, and which one was the last before this."""


async def test_an_older_response_is_gone_on_from_as_it_was(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave(COUNTED)
    one = await ask(client, "one", user="u-7")
    two = await ask(client, "two", one)
    branch = await ask(client, "other two", one)
    assert branch.output_text == "2 one"
    assert conversation_of(branch) != conversation_of(two) == conversation_of(one)
    assert (branch.previous_response_id, branch.user) == (one.id, "u-7")
    three = await ask(client, "other three", branch)
    assert conversation_of(three) == conversation_of(branch)
    assert three.output_text == "3 other two"
    again = await ask(client, "third two", branch)  # a branch of the branch
    assert again.output_text == "3 other two"
    assert conversation_of(again) not in {conversation_of(one), conversation_of(branch)}
    main = await ask(client, "main three", two)
    assert conversation_of(main) == conversation_of(one)
    assert main.output_text == "3 two"
    listed = await client.responses.input_items.list(branch.id)
    assert [item.content[0].text for item in listed.data] == ["other two"]  # type: ignore[union-attr]


async def test_of_two_at_once_one_goes_on_and_one_branches_off(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave(COUNTED)
    one = await ask(client, "one")
    both = await asyncio.gather(*(ask(client, text, one) for text in ("left", "right")))
    assert sorted(conversation_of(each) == conversation_of(one) for each in both) == [False, True]
    assert [each.output_text for each in both] == ["2 one", "2 one"]


async def test_who_comes_while_somebody_is_about_to_go_on_branches_off(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave(COUNTED)
    one = await ask(client, "one")
    mark = keys.following("acme", job_id_of(one))
    await product.deployment.commands.run("SET", mark, "1")
    branch = await ask(client, "two", one)
    assert (conversation_of(branch) != conversation_of(one), branch.output_text) == (True, "2 one")
    assert await product.deployment.commands.run("EXISTS", mark) == 1, "it is not ours to end"


async def test_a_message_by_another_way_makes_it_an_older_one(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave(COUNTED)
    one = await ask(client, "one", conversation="order-7")
    await ask(client, "by name", conversation="order-7")
    branch = await ask(client, "two", one)
    assert conversation_of(branch) != "order-7"
    assert branch.output_text == "2 one"


async def test_a_repeat_is_its_first_try_even_before_the_previous_one_is_over(
    client: AsyncOpenAI, deployment: Deployment
) -> None:
    one = await ask(client, "one", background=True)
    more: dict[str, Any] = {"background": True, "extra_headers": {"idempotency-key": "k"}}
    first = await ask(client, "two", one, **more)
    assert conversation_of(first) == conversation_of(one)
    assert (await ask(client, "two", one, **more)).id == first.id
    with pytest.raises(openai.ConflictError) as refused:
        await ask(client, "other two", one, background=True)
    assert refused.value.code == "previous_response_not_over"
    async with deployment.worker():
        await ended(client, first.id)
        branch = await ask(client, "other two", one)
    assert conversation_of(branch) != conversation_of(one)


async def test_who_is_refused_has_not_gone_on(client: AsyncOpenAI, product: Product) -> None:
    one = await ask(client, "one", extra_headers={"idempotency-key": "k"})
    with pytest.raises(openai.UnprocessableEntityError):
        await ask(client, "two", one, extra_headers={"idempotency-key": "k"})
    assert conversation_of(await ask(client, "two", one)) == conversation_of(one)
    assert await product.deployment.commands.run("EXISTS", keys.following("acme", job_id_of(one))) == 0


async def test_a_branch_is_for_the_user_of_its_conversation(client: AsyncOpenAI, product: Product) -> None:
    one = await ask(client, "one", user="u-7")
    await ask(client, "two", one)
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await ask(client, "other two", one, user="u-8")
    assert refused.value.code == "conversation_owner"
