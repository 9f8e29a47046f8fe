"""Models are the agents."""

import openai
import pytest
from openai import AsyncOpenAI


async def test_models_are_the_agents(client: AsyncOpenAI) -> None:
    listed = [model async for model in client.models.list()]
    assert {model.id for model in listed} >= {"support", "sales", "advocate"}
    assert await client.models.retrieve("support") in listed
    with pytest.raises(openai.NotFoundError) as error:
        await client.models.retrieve("gpt-5")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
