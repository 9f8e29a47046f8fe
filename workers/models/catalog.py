"""Which providers this deployment has, and which of them an agent gets.

Called by the worker at start (`open_models`, `close_models`) and by the route stage of a turn (`choose`). A provider
is there when its key is; an agent whose providers are all missing is said at start and ends its jobs with a sentence.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from agents.api import ChatModel
from shared.config import Settings
from shared.errors import ConfigError
from workers.models.anthropic import AnthropicModel
from workers.models.openai import OpenAIModel

M = TypeVar("M")


class OpenModel(ChatModel, Protocol):
    """A provider with its connections."""

    async def aclose(self) -> None: ...


def open_models(settings: Settings) -> Mapping[str, OpenModel]:
    """The providers that have a key, by name. Connects to nothing yet."""
    idle_timeout_s = settings.model_idle_timeout_s
    models: dict[str, OpenModel] = {}
    if settings.openai_api_key is not None:
        models["openai"] = OpenAIModel(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            idle_timeout_s=idle_timeout_s,
        )
    if settings.anthropic_api_key is not None:
        models["anthropic"] = AnthropicModel(
            api_key=settings.anthropic_api_key.get_secret_value(),
            base_url=settings.anthropic_base_url,
            idle_timeout_s=idle_timeout_s,
        )
    return models


async def close_models(models: Mapping[str, OpenModel]) -> None:
    for model in models.values():
        await model.aclose()


def choose(wanted: Sequence[str], available: Mapping[str, M]) -> tuple[M, str]:
    """The first of an agent's `provider:model` whose provider is there, and the model's name.

    Raises ConfigError, a sentence fit for the job, when none is.
    """
    for spec in wanted:
        provider, _, name = spec.partition(":")
        if provider in available:
            return available[provider], name
    keys = " or ".join(sorted({f"{spec.partition(':')[0].upper()}_API_KEY" for spec in wanted}))
    raise ConfigError(f"None of the models {', '.join(wanted)} can be reached: set {keys}.")
