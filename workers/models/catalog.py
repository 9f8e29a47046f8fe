"""Which providers this deployment has: those whose key is set. Called by the worker at start and at its end.

Only their SDKs are loaded: OpenAI's is a third of a second and 13 MiB of a process, Anthropic's a second and 40 MiB.
"""

from collections.abc import Mapping
from typing import Protocol

from agents.api import ChatModel
from shared.config import Settings


class OpenModel(ChatModel, Protocol):
    """A provider with its connections."""

    async def aclose(self) -> None: ...


def open_models(settings: Settings) -> Mapping[str, OpenModel]:
    """The providers that have a key, by name. Connects to nothing yet, but takes its time: see above."""
    idle_timeout_s = settings.model_idle_timeout_s
    models: dict[str, OpenModel] = {}
    if settings.openai_api_key is not None:
        from workers.models.openai import OpenAIModel  # noqa: PLC0415 - with a key only

        models["openai"] = OpenAIModel(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            idle_timeout_s=idle_timeout_s,
        )
    if settings.anthropic_api_key is not None:
        from workers.models.anthropic import AnthropicModel  # noqa: PLC0415 - with a key only

        models["anthropic"] = AnthropicModel(
            api_key=settings.anthropic_api_key.get_secret_value(),
            base_url=settings.anthropic_base_url,
            idle_timeout_s=idle_timeout_s,
        )
    return models


async def close_models(models: Mapping[str, OpenModel]) -> None:
    for model in models.values():
        await model.aclose()
